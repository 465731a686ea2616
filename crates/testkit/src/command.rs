//! Programs that tests run: each has a time limit, its output is kept, and it never outlives the thread that started it.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};

/// How long a program of a test may run, where the test says nothing else.
pub const RUN_LIMIT: Duration = Duration::from_secs(60);

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub line: String,
    /// The exit code; 128 and the signal's number where a signal ended it, as a shell has it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The standard output of a program that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        self.exits(0).stdout
    }

    /// The same program, which must have ended with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Finished {
        assert_eq!(self.code, code, "exit code of {}\nstdout: {}\nstderr: {}", self.line, self.stdout, self.stderr);
        self
    }
}

/// Runs a program to its end, with `stdin` as its input.
///
/// Panics where it cannot be started or takes longer than `limit`.
#[track_caller]
pub fn run(command: &mut Command, stdin: &str, limit: Duration) -> Finished {
    let (finished, in_time) = run_within(command, stdin, limit);
    let Finished { line, stdout, stderr, .. } = &finished;
    assert!(in_time, "no end within {limit:?}: {line}\nstdout: {stdout}\nstderr: {stderr}");
    finished
}

/// The same for a program that may take too long: it is killed then, and the second is false.
///
/// Panics where it cannot be started.
#[track_caller]
pub fn run_within(command: &mut Command, stdin: &str, limit: Duration) -> (Finished, bool) {
    let line = show(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command);
    let mut input = child.stdin.take().expect("piped");
    let mut output = child.stdout.take().expect("piped");
    let mut errors = child.stderr.take().expect("piped");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A program that does not read its input closes it.
            let _ = input.write_all(stdin.as_bytes());
        });
        let stdout = scope.spawn(move || read_all(&mut output));
        let stderr = scope.spawn(move || read_all(&mut errors));
        let in_time = wait(&mut child, limit);
        let status = in_time.unwrap_or_else(|| {
            let _ = child.kill();
            child.wait().expect("it was killed")
        });
        let (stdout, stderr) = (stdout.join().expect("reads"), stderr.join().expect("reads"));
        (Finished { line, code: code(status), stdout, stderr }, in_time.is_some())
    })
}

/// Starts a program that is killed when the calling thread ends, whatever way it ends.
#[track_caller]
pub fn spawn(command: &mut Command) -> Child {
    // SAFETY: the closure makes one system call and allocates nothing, so it is sound between fork and exec.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    command.spawn().unwrap_or_else(|e| panic!("cannot start {}: {e}", show(command)))
}

/// Waits for a program; `None` where it still runs after `limit`.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let pid = Pid::from_child(child);
    let descriptor = pidfd_open(pid, PidfdFlags::empty()).expect("the child is not waited for yet");
    let limit = Timespec::try_from(limit).expect("a limit in range");
    let ready = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&limit)).expect("a descriptor of our own");
    (ready > 0).then(|| child.wait().expect("it has ended"))
}

/// The exit code as a shell has it.
pub fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// The folder of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/testkit is two folders deep")
}

/// The folder that cargo builds into.
pub fn target() -> PathBuf {
    profile().parent().expect("target/<profile>").to_owned()
}

/// The binary under test, built now (once a process) unless `KEMUDI_BIN` names one.
pub fn kemudi() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("KEMUDI_BIN") {
            return path.into();
        }
        // Always through cargo, which knows whether there is anything to do: a stale binary would be judged else.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "kemudi", "--bin", "kemudi"]).current_dir(workspace());
        build.arg("--target-dir").arg(target());
        if profile().ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().expect("cargo runs");
        assert!(status.success(), "kemudi does not build");
        profile().join("kemudi")
    })
}

/// The ordinary user that runs servers and nodes when the tests are root.
const ORDINARY: u32 = 12345;

/// An ordinary user who may run pods here, for tests that are root; nobody, and why, otherwise.
pub fn ordinary_user() -> Option<u32> {
    if !rustix::process::geteuid().is_root() {
        // All tests are just that.
        return None;
    }
    let allowed = Command::new("unshare").args(["--user", "true"]).uid(ORDINARY).gid(ORDINARY).status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("this machine lets no ordinary user have user namespaces");
        return None;
    }
    Some(ORDINARY)
}

/// `target/debug` or `target/release`: where this very program lies, or the folder above where it is a test.
pub fn profile() -> PathBuf {
    let own = std::env::current_exe().expect("a program knows itself");
    let folder = own.parent().expect("a file is in a folder");
    let nested = folder.ends_with("deps") || folder.ends_with("examples");
    if nested { folder.parent().expect("target/<profile>/deps").to_owned() } else { folder.to_owned() }
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn read_all(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
