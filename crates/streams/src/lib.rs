//! What exec, attach and port-forward say once a connection was upgraded: streams side by side on one connection, in SPDY/3.1
//! or in WebSocket messages. One [`remote_command`] session and one [`port_forward`] session whatever carries them. Knows no
//! API objects, starts no process and decides nothing about rights.
//!
//! ```text
//! upgrade         which protocol a request asks for, and the answer to it
//! spdy, websocket the two framings: pure codecs, and the loops that move their frames
//! stream          a stream's two halves, the same for both
//! remote_command  stdin, stdout, stderr, error and resize streams
//! port_forward    a pair of streams (data, error) for each connection
//! ```
#![deny(missing_docs)]

pub mod port_forward;
pub mod remote_command;
pub mod spdy;
pub mod stream;
pub mod upgrade;
pub mod websocket;

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

/// How long an upgraded connection may be silent, as a kubelet has it.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(4 * 3600);
/// How long a client may take to make the streams that its request announced.
pub const CREATION_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a client may take to read the last output and to close, once everything has been said. Closing first would make
/// the kernel throw away what a slow client has not read yet.
pub const FINISH_TIME_MAX: Duration = Duration::from_secs(15 * 60);

/// A connection that carries bytes in both directions.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Any such connection.
pub type Io = Box<dyn Connection>;
