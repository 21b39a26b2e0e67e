//! The methods of all types that are read from and written to, each defined once, as macros.
//!
//! The type has a field `fd`, a `TryRc<SharedFd>`.

/// Reading, for a type with a shared `fd`.
macro_rules! reading {
    () => {
        /// Reads into the space of a buffer; returns the number of bytes, 0 at the end of the
        /// stream. A `Vec` is appended to, within its spare capacity; see
        /// [`BufferMut`](crate::BufferMut).
        ///
        /// Cancel-safe: data that had arrived when the future is dropped goes to the next read, in
        /// order. Errors: EINVAL when the buffer has no space, or more than `i32::MAX` bytes.
        pub async fn read<B: crate::BufferMut>(&mut self, buffer: B) -> (crate::Result<usize>, B) {
            crate::io::receive(&self.fd, buffer).await.into()
        }

        /// Reads until the space is full. Errors: ENODATA when the stream ends before that; EINVAL
        /// when there is no space, as for an empty message. Data before an error is in the buffer,
        /// and the length of a `Vec` includes it.
        ///
        /// Not cancel-safe: dropping the future loses the data that it has read, except for the
        /// last part, which the next read gets.
        pub async fn read_exact<B: crate::BufferMut>(
            &mut self,
            buffer: B,
        ) -> (crate::Result<()>, B) {
            crate::io::fill(&self.fd, buffer).await
        }
    };
}

/// Writing, for a type with a shared `fd`.
macro_rules! writing {
    () => {
        /// Writes from a buffer; returns the number of bytes, which may be less than the length.
        ///
        /// Not cancel-safe: when the future is dropped, any part from the beginning of the buffer
        /// may have been written, and no more is written after the operation has ended. The next
        /// write waits for that end. Errors: EINVAL for more than `i32::MAX` bytes; EPIPE when the
        /// other end has gone.
        pub async fn write<B: crate::Buffer>(&mut self, buffer: B) -> (crate::Result<usize>, B) {
            crate::io::send(&self.fd, buffer, 0).await
        }

        /// Writes a whole buffer. After an error, its beginning may have been written;
        /// [`write`](Self::write) returns the exact number. On a socket, from Linux 6.1, one
        /// operation is enough.
        ///
        /// Not cancel-safe, as [`write`](Self::write).
        pub async fn write_all<B: crate::Buffer>(&mut self, buffer: B) -> (crate::Result<()>, B) {
            crate::io::send_all(&self.fd, buffer).await
        }
    };
}

pub(crate) use {reading, writing};
