//! Streams with the traits that other libraries require.
//!
//! [`Buffered`] turns a stream of [`net`](crate::io::net) into one with polled reads and writes,
//! over its own buffers. The feature `futures-io` adds `AsyncRead`, `AsyncBufRead` and `AsyncWrite`
//! of that crate, the feature `hyper` the traits of `hyper::rt`.
//!
//! ```
//! # #[cfg(feature = "futures-io")] {
//! use futures_util::io::{AsyncReadExt, AsyncWriteExt};
//! use ringloop::{Loop, compat::Buffered, net::UnixStream};
//!
//! let lp = Loop::new()?;
//! lp.run_until_complete(async {
//!     let (one, other) = UnixStream::pair()?;
//!     let (mut one, mut other) = (Buffered::from(one), Buffered::from(other));
//!     one.write_all(b"hello").await?;
//!     one.close().await?;
//!     let mut text = String::new();
//!     other.read_to_string(&mut text).await?;
//!     assert_eq!(text, "hello");
//!     std::io::Result::Ok(())
//! })??;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod buffered;
#[cfg(feature = "hyper")]
mod hyper;

pub use self::buffered::Buffered;
#[cfg(feature = "hyper")]
pub use self::hyper::{Executor, Timer};
