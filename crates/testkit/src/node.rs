//! A node of the built binary, for one test: `kemudi node` of a server that runs, in a folder that outlives it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Server;
use crate::command::{self, kemudi, spawn};
use crate::server::lines_of;

/// How long a node may take to begin and to end.
const LIMIT: Duration = Duration::from_secs(30);

/// A running `kemudi node`. Killed when it is dropped.
pub struct Node {
    child: Child,
}

impl Node {
    /// Starts a node of a server under a name. What it wrote to stderr is in the folder.
    #[track_caller]
    pub fn start(server: &Server, name: &str, folder: &Path) -> Node {
        Node::start_of(server, name, folder, kemudi())
    }

    /// The same with further arguments.
    #[track_caller]
    pub fn start_with(server: &Server, name: &str, folder: &Path, args: &[&str]) -> Node {
        Node::begin(server, name, folder, Command::new(kemudi()).arg("node").args(args))
    }

    /// The same of a certain binary.
    #[track_caller]
    pub fn start_of(server: &Server, name: &str, folder: &Path, binary: &Path) -> Node {
        Node::begin(server, name, folder, Command::new(binary).arg("node"))
    }

    #[track_caller]
    fn begin(server: &Server, name: &str, folder: &Path, command: &mut Command) -> Node {
        let errors = std::fs::File::options().append(true).create(true).open(folder.join("node.stderr"));
        command.arg("--kubeconfig").arg(&server.kubeconfig).args(["--name", name, "--port", "0", "--data"]);
        command.arg(folder.join("node")).stdin(Stdio::null()).stdout(Stdio::piped());
        command.env("KEMUDI_LOG", "node=debug");
        let mut child = spawn(command.stderr(errors.expect("a folder of our own")));
        let (lines, _drain) = lines_of(child.stdout.take().expect("piped"));
        let line = lines.recv_timeout(LIMIT);
        assert!(
            line.is_ok(),
            "`kemudi node` did not begin: {}",
            std::fs::read_to_string(folder.join("node.stderr")).unwrap_or_default()
        );
        Node { child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would.
    pub fn kill(self) {}

    /// Ends it with SIGTERM.
    #[track_caller]
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        assert!(command::wait(&mut self.child, LIMIT).is_some(), "the node does not end");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
