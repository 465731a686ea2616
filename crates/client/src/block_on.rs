//! For programs whose only asynchrony is this library: they need no runtime of their own, and none of its macros to compile. Never
//! used by the library itself.

use crate::error::{Error, Result};

/// Runs a program to its end on this thread, with tokio's runtime. A program that already has one awaits instead.
///
/// # Errors
/// The program's own, or that the system gives no runtime.
pub fn block_on<T, E: From<Error>>(program: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|why| Error::Request(format!("no asynchronous runtime: {why}")))?.block_on(program)
}
