//! `kemudi run`: a command in a pod, the way a user starts one.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::command::{Finished, RUN_LIMIT, kemudi, run, spawn, workspace};
use crate::server::{Server, lines_of};

/// How long one line of a [`Session`] may take.
const LINE_LIMIT: Duration = Duration::from_secs(30);

/// A `kemudi run` that is being put together.
pub struct Pod {
    args: Vec<String>,
    stdin: String,
}

impl Pod {
    /// A pod of a server that lives only as long as the command.
    #[expect(clippy::new_without_default)]
    pub fn new() -> Pod {
        Pod { args: vec!["run".into()], stdin: String::new() }
    }

    /// A pod of a running server.
    pub fn on(server: &Server) -> Pod {
        Pod::new().flag("--server", &server.kubeconfig.to_string_lossy())
    }

    /// `--allow 'get,list pods'`.
    pub fn allow(self, rights: &str) -> Pod {
        self.flag("--allow", rights)
    }

    /// Any flag with its value.
    pub fn flag(mut self, name: &str, value: &str) -> Pod {
        self.args.extend([name.into(), value.into()]);
        self
    }

    /// What the command reads.
    pub fn stdin(mut self, text: &str) -> Pod {
        self.stdin = text.into();
        self
    }

    /// Runs a line of shell in the pod.
    #[track_caller]
    pub fn shell(self, line: &str) -> Finished {
        self.run(&["sh", "-c", line])
    }

    /// Runs a command in the pod.
    #[track_caller]
    pub fn run(self, words: &[&str]) -> Finished {
        run(&mut self.command(words), &self.stdin, RUN_LIMIT)
    }

    /// A shell in the pod that runs line after line.
    #[track_caller]
    pub fn session(self) -> Session {
        let mut command = self.command(&["sh"]);
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let stdin = child.stdin.take();
        let (lines, drain) = lines_of(child.stdout.take().expect("piped"));
        Session { child, stdin, lines, drain: Some(drain) }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(kemudi());
        command.args(&self.args).arg("--").args(words).current_dir(workspace());
        command
    }
}

/// One pod, one shell: what a line changes, the next one sees.
pub struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    drain: Option<JoinHandle<()>>,
}

impl Session {
    /// Runs one line and gives what it printed. Panics where no end of it is seen.
    #[track_caller]
    pub fn say(&mut self, line: &str) -> String {
        const END: &str = "--end of the line--";
        let stdin = self.stdin.as_mut().expect("open until dropped");
        writeln!(stdin, "{line} 2>&1; printf '\\n%s\\n' '{END}'").expect("the shell reads");
        stdin.flush().expect("the shell reads");
        let mut out = Vec::new();
        loop {
            match self.lines.recv_timeout(LINE_LIMIT) {
                Ok(text) if text == END => return out.join("\n").trim_end().to_owned(),
                Ok(text) => out.push(text),
                Err(error) => panic!("{line}: {error} after:\n{}", out.join("\n")),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.stdin.take());
        if crate::command::wait(&mut self.child, LINE_LIMIT).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if let Some(drain) = self.drain.take() {
            let _ = drain.join();
        }
    }
}
