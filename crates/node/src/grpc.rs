//! What calls of gRPC over hyper's HTTP/2 have in common: how a message is framed, and what a connection runs beside. Knows no message.

use bytes::Bytes;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;

/// Before a message stand whether it is compressed and its length.
pub const PREFIX_BYTES: usize = 5;

/// A message with what stands before it, not compressed.
pub fn frame(message: &[u8]) -> Bytes {
    [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat().into()
}

/// What connections run beside. Ends when the last of them and their owner have let go of it, or with [`Tasks::end`].
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Ends them all: connections hold on to what they run beside.
    pub fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}
