//! A terminal of a program's own. It is made inside the container, so that it has a name there, and its other end is passed out
//! over a socket that the program was given as stdin. Knows nothing of who reads and types there.

use super::sys;
use super::wire;
use super::{Stdio, User};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The agent's end of the socket over which a program's terminal comes.
pub struct Console(OwnedFd);

impl Console {
    /// What a program with [`super::Terminal::Own`] is started with, and where its terminal comes out.
    pub fn new() -> io::Result<(Stdio, Console)> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
        let stdio = Stdio { stdin: theirs, stdout: null.try_clone()?.into(), stderr: null.into() };
        Ok((stdio, Console(ours)))
    }

    /// The terminal of the program, which has been started.
    pub fn terminal(self) -> io::Result<Terminal> {
        // It was sent before the program began, so it is there.
        rustix::io::ioctl_fionbio(&self.0, true)?;
        let master = wire::receive_fd(self.0.as_fd())?;
        Terminal::of(master)
    }
}

/// Makes a terminal in the container that the caller is in, passes its other end to the agent, and gives the program's end,
/// which becomes the terminal of the caller's session.
pub fn open(socket: &OwnedFd, user: Option<&User>) -> io::Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    let own = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    if let Some(user) = user {
        let _ = rustix::fs::fchown(&own, Some(rustix::process::Uid::from_raw(user.uid)), None);
    }
    rustix::process::ioctl_tiocsctty(&own)?;
    wire::send_fd(socket.as_fd(), master.as_fd())?;
    Ok(own)
}

/// The agent's end of a program's terminal: what is read was printed, what is written was typed. Clones are the same terminal.
#[derive(Clone)]
pub struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    /// A terminal whose other end this is.
    pub fn of(master: OwnedFd) -> io::Result<Terminal> {
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Terminal(Arc::new(sys::watch(master)?)))
    }

    /// Another descriptor of this end.
    pub fn another(&self) -> io::Result<OwnedFd> {
        self.0.get_ref().try_clone()
    }

    /// Sets how many characters and lines it has; the program is told.
    pub fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(self.0.get_ref(), size)?)
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *room)?)) {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The last program that had it is gone.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
