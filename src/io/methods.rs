//! The methods of all that is read from and written to, each once.

/// Reading, for a type with a shared `fd`.
macro_rules! reading {
    () => {
        /// Reads into the room of a buffer: how many bytes, 0 at the end of the stream. A `Vec` is
        /// appended to, within its spare capacity; see [`BufferMut`](crate::BufferMut).
        ///
        /// Cancel-safe: what had come when the future is dropped is given to the next read, in
        /// order. Errors: EINVAL when the buffer has no room, or more than `i32::MAX` bytes.
        pub async fn read<B: crate::BufferMut>(&mut self, buffer: B) -> (crate::Result<usize>, B) {
            crate::io::receive(&self.fd, buffer).await.into()
        }

        /// Reads until all of the room is filled. Errors: ENODATA when the stream ends before that;
        /// EINVAL when there is no room, as for a message that is empty. What has come before an
        /// error is in the buffer, and a `Vec` tells how much that is.
        ///
        /// Not cancel-safe: what was read before the future is dropped is lost, but for what came
        /// last, which the next read gets.
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
        /// Writes from a buffer: how many bytes, which may be fewer than there are.
        ///
        /// Not cancel-safe: when the future is dropped, any part from the beginning of the buffer
        /// may have been written, and nothing of it is after that. The next write waits for the end
        /// of this one. Errors: EINVAL for more than `i32::MAX` bytes; EPIPE when the other end has
        /// gone.
        pub async fn write<B: crate::Buffer>(&mut self, buffer: B) -> (crate::Result<usize>, B) {
            crate::io::send(&self.fd, buffer, 0).await
        }

        /// Writes all of a buffer. After an error, a part from its beginning may have been written;
        /// who has to know how much uses [`write`](Self::write). On a socket, from Linux 6.1, one
        /// operation does for all of it.
        ///
        /// Not cancel-safe, as [`write`](Self::write).
        pub async fn write_all<B: crate::Buffer>(&mut self, buffer: B) -> (crate::Result<()>, B) {
            crate::io::send_all(&self.fd, buffer).await
        }
    };
}

pub(crate) use {reading, writing};
