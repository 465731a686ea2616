//! The same faults for every client: a program of each makes the same paced calls and keeps the same watch, in what looks to it
//! like a pod, while its server breaks. Tells what failed and how long it took; judges nobody.

mod server;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use server::{FaultServer, Trouble};

use crate::clients;
use crate::command::{profile, spawn};

/// Calls that a program starts in a second, a get and a list in turns.
pub const CALLS_PER_SECOND: u32 = 10;
/// How long what passes by lasts in the measurements.
pub const WINDOW: Duration = Duration::from_secs(1);
/// How long a run goes on for a client that does not recover.
pub const RECOVERY_MAX: Duration = Duration::from_secs(75);
/// A call that takes longer is not counted as a recovery, even if it ends well.
const PROMPT: Duration = Duration::from_secs(1);
/// How long all must be well before a run ends.
const WELL: Duration = Duration::from_secs(2);
/// How long a program may take to its first call and its first event.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Lines of a program that wait to be read; then it waits too.
const LINES_MAX: usize = 4096;
/// What a program sees as its own: the files of a pod, and nothing of the machine's.
const IN_A_POD: &str = "set -e; mount -t tmpfs tmpfs /var/run; A=/var/run/secrets/kubernetes.io/serviceaccount; mkdir -p $A; \
     mount --bind \"$FILES\" $A; exec \"$@\"";

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The token's file is replaced, and the old token is worth nothing from then on.
    TokenRevoked,
    /// The authority's file is replaced, all connections end, and the server shows what the new one signed.
    AuthorityReplaced,
    /// For a second, 429 with `Retry-After: 1`.
    TooMany,
    /// For a second, 503.
    Unavailable,
    /// All connections end at once.
    Cut,
    /// For a second, connections end when a request has come.
    CutBefore,
    /// For a second, connections end in the middle of the answer.
    CutWithin,
    /// For a second, nothing listens.
    Refused,
    /// History is forgotten: all watches are told 410.
    Expired,
    /// For a second, answers take a second to come, in small pieces.
    Slow,
    /// Nothing comes and goes on the connections that there are; new ones work.
    Silent,
}

/// All of them, as the tables have them.
pub const FAULTS: [Fault; 11] = [
    Fault::TokenRevoked,
    Fault::AuthorityReplaced,
    Fault::TooMany,
    Fault::Unavailable,
    Fault::Cut,
    Fault::CutBefore,
    Fault::CutWithin,
    Fault::Refused,
    Fault::Expired,
    Fault::Slow,
    Fault::Silent,
];

impl Fault {
    /// What happens, in words.
    pub fn describe(self) -> &'static str {
        match self {
            Fault::TokenRevoked => "the token is replaced and the old one revoked",
            Fault::AuthorityReplaced => "the authority is replaced, all connections are cut",
            Fault::TooMany => "429 with `Retry-After: 1`, for 1 s",
            Fault::Unavailable => "503, for 1 s",
            Fault::Cut => "all connections are cut, once",
            Fault::CutBefore => "each request cuts its connection, for 1 s",
            Fault::CutWithin => "each answer is cut in its middle, for 1 s",
            Fault::Refused => "nothing listens, for 1 s",
            Fault::Expired => "410 on all watches, once",
            Fault::Slow => "answers take 1 s, in small pieces, for 1 s",
            Fault::Silent => "open connections fall silent, new ones work",
        }
    }

    fn begin(self, server: &FaultServer) {
        match self {
            Fault::TokenRevoked => server.rotate_token(),
            Fault::AuthorityReplaced => server.replace_authority(),
            Fault::TooMany => server.set(Trouble::TooMany),
            Fault::Unavailable => server.set(Trouble::Unavailable),
            Fault::Cut => server.cut(),
            Fault::CutBefore => server.set(Trouble::CutBefore),
            Fault::CutWithin => server.set(Trouble::CutWithin),
            Fault::Refused => server.close(),
            Fault::Expired => server.forget(),
            Fault::Slow => server.set(Trouble::Trickle),
            Fault::Silent => server.fall_silent(),
        }
    }

    /// Ends what passes by, after its time.
    fn end(self, server: &FaultServer) {
        match self {
            Fault::Refused => server.open(),
            _ => server.set(Trouble::None),
        }
    }

    fn passes_by(self) -> bool {
        matches!(
            self,
            Fault::TooMany | Fault::Unavailable | Fault::CutBefore | Fault::CutWithin | Fault::Refused | Fault::Slow
        )
    }
}

/// Whose program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    ClientGo,
    KubeRs,
    Python,
    Ours,
}

/// All of them, as the tables have them.
pub const SUBJECTS: [Subject; 4] = [Subject::ClientGo, Subject::KubeRs, Subject::Python, Subject::Ours];

impl Subject {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Subject::ClientGo => "client-go",
            Subject::KubeRs => "kube-rs",
            Subject::Python => "Python",
            Subject::Ours => "kemudi-client",
        }
    }

    fn program(self) -> Vec<PathBuf> {
        match self {
            Subject::ClientGo => vec![clients::go_steady()],
            Subject::KubeRs => vec![clients::rust_steady()],
            Subject::Python => vec![clients::python(), clients::python_steady()],
            Subject::Ours => {
                let path = profile().join("examples/steady");
                assert!(path.exists(), "{} is not there: build the examples of this package", path.display());
                vec![path]
            }
        }
    }
}

/// What became of the calls and of the watch.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Calls that were begun.
    pub calls: usize,
    /// Those that failed, or had no end when the run had.
    pub failed: usize,
    /// From the end of what was wrong until calls were well and prompt again; `None`: not within the run.
    pub recovered: Option<Duration>,
    /// The slowest of the calls that went well.
    pub slowest: Duration,
    /// Errors that the watch told the program.
    pub watch_failed: usize,
    /// From the end of what was wrong until the watch had told all that had happened by then.
    pub watch_recovered: Option<Duration>,
    /// Requests that the server got beyond one for each call: those of the watch, repeats, questions.
    pub beyond: u64,
    /// Different reasons of failed calls, as the client told them.
    pub reasons: Vec<String>,
}

/// Lets one program meet one fault; what passes by lasts for `window`.
///
/// Panics where the program does not get on without a fault.
pub fn meet(subject: Subject, fault: Fault, window: Duration) -> Outcome {
    let server = FaultServer::start();
    let mut run = Run::start(subject, &server);
    run.until(START_LIMIT, |run| run.calls_are_well(WELL / 2) && run.has_beat(server.beat() - 2)).unwrap_or_else(
        || {
            panic!("{} does not get on: {:?}", subject.name(), run.calls.last());
        },
    );
    fault.begin(&server);
    if fault.passes_by() {
        run.until(window, |_| false);
        fault.end(&server);
    }
    let (ended, beat) = (now(), server.beat());
    run.until(RECOVERY_MAX, |run| {
        now().saturating_sub(ended) >= WELL && run.calls_are_well(WELL) && run.has_beat(server.beat() - 5)
    });
    let requests = server.requests();
    run.finish();
    run.outcome(ended, beat, requests)
}

/// One call, as the program told it; times since 1970.
#[derive(Clone, Debug)]
struct Call {
    begun: Duration,
    /// `None`: it had no end.
    ended: Option<Duration>,
    failure: Option<String>,
}

struct Run {
    child: Child,
    lines: Receiver<String>,
    calls: Vec<Call>,
    /// When the watch told which number.
    beats: Vec<(u64, Duration)>,
    watch_failures: Vec<String>,
}

impl Run {
    fn start(subject: Subject, server: &FaultServer) -> Run {
        let address = server.address();
        let program = subject.program();
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", IN_A_POD, "sh"]).args(program);
        command.arg(CALLS_PER_SECOND.to_string()).env("FILES", server.volume());
        command.env("KUBERNETES_SERVICE_HOST", address.ip().to_string());
        command.env("KUBERNETES_SERVICE_PORT", address.port().to_string());
        // A kubeconfig of whoever runs this is not the program's.
        command
            .env_remove("KUBECONFIG")
            .env("HOME", "/nonexistent")
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy");
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()));
        let lines = lines_of(child.stdout.take().expect("piped"));
        Run { child, lines, calls: Vec::new(), beats: Vec::new(), watch_failures: Vec::new() }
    }

    /// Hears the program until this holds; `None` where it does not within the limit.
    fn until(&mut self, limit: Duration, holds: impl Fn(&Run) -> bool) -> Option<()> {
        let end = Instant::now() + limit;
        loop {
            if holds(self) {
                return Some(());
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.hear(&line),
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::park_timeout(left);
                    return None;
                }
            }
        }
    }

    /// Tells the program to end, and hears it out.
    fn finish(&mut self) {
        let end = now();
        drop(self.child.stdin.take());
        while let Ok(line) = self.lines.recv_timeout(PROMPT * 5) {
            self.hear(&line);
        }
        // A call that had hardly begun is neither here nor there.
        self.calls.retain(|call| call.ended.is_some() || call.begun + PROMPT < end);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// `call BEGUN ENDED ok`, `call BEGUN ENDED failed WHY`, `open BEGUN`, `beat NUMBER AT`, `watch failed WHY`; times in
    /// microseconds since 1970.
    fn hear(&mut self, line: &str) {
        let mut words = line.splitn(5, ' ');
        let mut word = || words.next().unwrap_or_default();
        let number = |word: &str| word.parse().map(Duration::from_micros).unwrap_or_default();
        match (word(), word(), word(), word(), word()) {
            ("call", begun, ended, "ok", _) => {
                self.calls.push(Call { begun: number(begun), ended: Some(number(ended)), failure: None });
            }
            ("call", begun, ended, _, why) => {
                let failure = Some(why.to_owned());
                self.calls.push(Call { begun: number(begun), ended: Some(number(ended)), failure });
            }
            ("open", begun, ..) => self.calls.push(Call { begun: number(begun), ended: None, failure: None }),
            ("beat", beat, at, ..) => self.beats.push((beat.parse().unwrap_or_default(), number(at))),
            ("watch", ..) => self.watch_failures.push(line.to_owned()),
            _ => {}
        }
    }

    /// The calls of the last while were many enough, prompt, and went well.
    fn calls_are_well(&self, period: Duration) -> bool {
        let since = now().saturating_sub(period);
        let mut recent = self.calls.iter().filter(|call| call.begun >= since);
        let enough = period.as_secs_f64() * f64::from(CALLS_PER_SECOND) * 0.7;
        recent.clone().count() as f64 >= enough && recent.all(Call::is_well)
    }

    fn has_beat(&self, number: u64) -> bool {
        self.beats.last().is_some_and(|(beat, _)| *beat >= number)
    }

    fn outcome(&self, ended: Duration, beat: u64, requests: u64) -> Outcome {
        let is_bad = |call: &&Call| call.ended.is_none() || call.failure.is_some();
        let failed = self.calls.iter().filter(is_bad);
        let mut reasons: Vec<String> = failed.clone().filter_map(|call| call.failure.clone()).collect();
        reasons.sort();
        reasons.dedup();
        // From here on all went well: behind the last call that did not.
        let later = || self.calls.iter().filter(|call| call.begun >= ended);
        let last_bad = later().filter(|call| !call.is_well()).map(|call| call.begun).max();
        let good =
            later().filter(|call| last_bad.is_none_or(|bad| call.begun > bad)).filter_map(|call| call.ended).min();
        let told = self.beats.iter().find(|(number, at)| *number >= beat && *at >= ended).map(|(_, at)| *at);
        Outcome {
            calls: self.calls.len(),
            failed: failed.count(),
            recovered: good.map(|good| good - ended),
            slowest: self.calls.iter().filter_map(Call::went_well_after).max().unwrap_or_default(),
            watch_failed: self.watch_failures.len(),
            watch_recovered: told.map(|told| told - ended),
            beyond: requests.saturating_sub(self.calls.len() as u64),
            reasons,
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Call {
    fn went_well_after(&self) -> Option<Duration> {
        self.ended.filter(|_| self.failure.is_none()).map(|ended| ended.saturating_sub(self.begun))
    }

    fn is_well(&self) -> bool {
        self.went_well_after().is_some_and(|took| took <= PROMPT)
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970")
}

fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (tell, lines) = sync_channel(LINES_MAX);
    // It ends with the program, whose output it reads.
    std::thread::spawn(move || {
        let lines = BufReader::new(output).lines();
        lines.map_while(Result::ok).all(|line| tell.send(line).is_ok());
    });
    lines
}
