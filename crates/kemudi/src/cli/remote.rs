//! This process's standard streams as those of a command in a pod: for `exec` and `attach`.

use std::io::IsTerminal;

use clap::Args;
use kemudi_client::remote::{Incoming, Outgoing, Resizer};
use kemudi_client::{Remote, RemoteOptions};
use rustix::termios::{self, OptionalActions, Termios};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Outcome};

/// What is read of stdin at once, in bytes.
const READ_BYTES: usize = 32 * 1024;

/// The flags of both commands.
#[derive(Args, Debug)]
pub struct Streams {
    /// Pass stdin on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Stdin is a terminal, and the command has one too
    #[arg(short = 't', long)]
    pub tty: bool,
}

impl Streams {
    /// This process's terminal, if it is to be the command's.
    pub fn terminal(&self) -> Outcome<Option<Terminal>> {
        if !self.tty {
            return Ok(None);
        }
        if !self.stdin || !std::io::stdin().is_terminal() {
            eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
            return Ok(None);
        }
        Terminal::take().map(Some)
    }

    pub fn options(&self, container: String, tty: bool) -> RemoteOptions {
        RemoteOptions { container: Some(container), stdin: self.stdin, stdout: true, stderr: !tty, tty }
    }
}

/// The terminal of this process, which passes on every key as it is typed; as it was before once this is dropped.
pub struct Terminal {
    before: Termios,
}

impl Terminal {
    fn take() -> Outcome<Terminal> {
        let failed = |why: rustix::io::Errno| Failure::new(format!("cannot use the terminal: {why}"));
        let before = termios::tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Terminal { before })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Passes everything on until the command ends.
pub async fn run(mut session: Remote, stdin: bool, terminal: Option<Terminal>) -> Outcome<kemudi_client::Outcome> {
    let input = session.take_stdin().filter(|_| stdin);
    let resizer = session.take_resizer().filter(|_| terminal.is_some());
    let outputs = async {
        let (stdout, stderr) = (session.take_stdout(), session.take_stderr());
        tokio::join!(copy_out(stdout, tokio::io::stdout()), copy_out(stderr, tokio::io::stderr()));
        session.wait().await
    };
    let inputs = async {
        tokio::join!(copy_in(input), follow_size(resizer));
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = outputs => outcome,
        () = inputs => return Err(Failure::silent(1)),
    };
    drop(terminal);
    Ok(outcome?)
}

/// The exit code of the command, as this program's.
pub fn finish(outcome: kemudi_client::Outcome) -> Outcome {
    use kemudi_client::Outcome::*;
    match outcome {
        Success => Ok(()),
        Code(code, _) => {
            eprintln!("command terminated with exit code {code}");
            Err(Failure::silent(u8::try_from(code & 0xff).unwrap_or(1)))
        }
        Failed(why) => Err(Failure::new(format!("Internal error occurred: {why}"))),
    }
}

async fn copy_in(to: Option<Outgoing>) {
    let Some(mut to) = to else { return };
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = stdin.read(&mut buffer).await {
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn copy_out(from: Option<Incoming>, mut to: impl tokio::io::AsyncWrite + Unpin) {
    let Some(mut from) = from else { return };
    while let Some(piece) = from.next().await {
        if to.write_all(&piece).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

/// Tells the command how large the terminal is, now and whenever that changes.
async fn follow_size(resizer: Option<Resizer>) {
    let Some(mut resizer) = resizer else { return };
    let Ok(mut changed) = signal(SignalKind::window_change()) else { return };
    while let Ok(size) = termios::tcgetwinsize(std::io::stdout()) {
        if resizer.resize(size.ws_col, size.ws_row).await.is_err() || changed.recv().await.is_none() {
            return;
        }
    }
}
