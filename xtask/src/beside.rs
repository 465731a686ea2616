//! `cargo xtask bench --client`: the client library beside kube-rs, the same data in the same run; what a first program with each takes to
//! build. With `--write`, its part of `docs/benchmarks.md` is what it found. Knows neither of them: the programs are in `crates/testkit/beside`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{cargo, operators, target, workspace};

const HEADING: &str = "\n## The client library beside kube-rs\n";
/// What `/proc` counts CPU time in, whatever the kernel ticks in.
const TICKS_A_SECOND: u64 = 100;

/// Measures and prints; with `--write`, writes too.
pub fn run(args: &[String]) -> ExitCode {
    let writes = match args {
        [] => false,
        [flag] if flag == "--write" => true,
        other => {
            eprintln!("bench --client: {other:?} is not known, only --write");
            return ExitCode::from(2);
        }
    };
    match table() {
        Ok(text) => {
            println!("{text}");
            if writes {
                write(&text);
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("bench --client: {why}");
            ExitCode::FAILURE
        }
    }
}

fn table() -> Result<String, String> {
    let mut build = beside();
    build.args(["build", "--release", "--quiet", "--locked", "--package", "measure", "--package", "operators"]);
    output(build.arg("--target-dir").arg(target().join("tools/beside")))?;
    let programs = target().join("tools/beside/release");
    let measure = programs.join("measure");
    // What makes the protobuf, and the operators' server.
    let mut helpers = cargo();
    helpers.args(["build", "--quiet", "--package", "kemudi", "--package", "kemudi-testkit"]);
    output(helpers.args(["--bin", "kemudi", "--bin", "protobuf"]))?;
    let list = output_bytes(&mut Command::new(&measure))?;
    let protobuf = target().join("tools/pods.pb");
    let encoded = piped(&mut Command::new(target().join("debug/protobuf")), list)?;
    std::fs::write(&protobuf, encoded).map_err(|e| format!("{}: {e}", protobuf.display()))?;
    let said = output(Command::new(&measure).arg(&protobuf))?;
    let found: Value = serde_json::from_str(&said).map_err(|e| format!("{e}: {said}"))?;
    let (our_build, their_build) = (Build::cold("ours")?, Build::cold("theirs")?);
    let mut library = cargo();
    library.args(["tree", "--locked", "--package", "kemudi-client"]);
    let library = crates(&mut library)?;

    let mut rows = Vec::new();
    let mut row = |what: &str, goal: &str, ours: String, theirs: String, ratio: f64| {
        rows.push(format!("| {what} | {goal} | {ours} | {theirs} | 1/{ratio:.1} |"));
    };
    for (name, what, goals) in [
        ("list", "list of 10,000 pods as `kinds::Pod`", ["1/6", "1/3.5", "1/2.5"]),
        ("complete", "the same as k8s-openapi's complete `Pod`", [""; 3]),
        ("compressed", "the same as `kinds::Pod`, compressed by the server (feature `gzip`)", [""; 3]),
        ("protobuf", "the same as `kinds::Pod`, in protobuf (feature `protobuf`)", ["", "", "1/2"]),
        ("compressedProtobuf", "the same in protobuf, compressed", ["", "", "1/2"]),
    ] {
        let [ours, theirs] = [&found[name]["ours"], &found[name]["theirs"]];
        let of = |field: &str| (number(&ours[field]), number(&theirs[field]));
        let (our, their) = of("peakMiB");
        row(&format!("{what}: peak heap"), goals[0], format!("{our:.1} MiB"), format!("{their:.1} MiB"), their / our);
        let (our, their) = of("allocations");
        row(&format!("{what}: allocations a pod"), goals[1], format!("{our:.1}"), format!("{their:.1}"), their / our);
        let (our, their) = of("ms");
        row(&format!("{what}: CPU time"), goals[2], format!("{our:.0} ms"), format!("{their:.0} ms"), their / our);
    }
    let mb = |bytes: f64| format!("{:.1} MB", bytes / 1e6);
    for (name, what, goal) in [
        ("protobuf", "bytes of that list on the wire, in protobuf", ""),
        ("compressed", "the same in JSON, compressed", ""),
        ("compressedProtobuf", "the same in protobuf, compressed", "1/2"),
    ] {
        let (our, their) = (number(&found["wireBytes"][name]), number(&found["wireBytes"]["list"]));
        row(what, goal, mb(our), mb(their), their / our);
        if name == "protobuf" {
            let managed = number(&found["wireBytes"]["managedFields"]);
            let (our, their) = (our - managed, their - managed);
            row(
                "the same but for the managed fields, which are JSON within it too",
                "1/2",
                mb(our),
                mb(their),
                their / our,
            );
        }
    }
    let cache = |side: &str| number(&found["cache"][side]["liveMiB"]);
    let (our, their) = (cache("ours"), cache("theirs"));
    row("cache of their metadata: live heap", "1/10", format!("{our:.1} MiB"), format!("{their:.1} MiB"), their / our);
    let connections = |side: &str| number(&found["connections"][side]);
    let (our, their) = (connections("ours"), connections("theirs"));
    row("connections of 400 watches", "1", format!("{our}"), format!("{their}"), their / our);
    let [our, their] = operators::both(&programs)?;
    let ratio = their.lines as f64 / our.lines as f64;
    row("an operator (the example `operator.rs`): lines", "", our.lines.to_string(), their.lines.to_string(), ratio);
    row(
        &format!("its memory with {} objects", operators::OBJECTS),
        "",
        format!("{:.1} MB", our.resident_mb),
        format!("{:.1} MB", their.resident_mb),
        their.resident_mb / our.resident_mb,
    );
    let (our, their) = (our_build.crates as f64, their_build.crates as f64);
    row(
        "crates of a program that lists pods",
        "",
        format!("{our}, {library} of them the library's"),
        format!("{their}"),
        their / our,
    );
    let built = |build: &Build| {
        format!("{:.0} s of CPU ({:.0} s on a clock)", build.cpu.as_secs_f64(), build.clock.as_secs_f64())
    };
    let ratio = their_build.cpu.as_secs_f64() / our_build.cpu.as_secs_f64();
    row("its first build for release", "1/3", built(&our_build), built(&their_build), ratio);
    let (our, their) = (our_build.bytes as f64, their_build.bytes as f64);
    row("its size, stripped", "", mb(our), mb(their), their / our);

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(format!(
        "{HEADING}
`cargo xtask bench --client` measured this on {cores} cores: both libraries in one process, the same ten thousand pods of 4.3 KB each as the
body of an answer in pieces of 16 KB, the same allocator that counts, CPU time of the one thread, the median of seven runs. kube-rs is
5.0 with k8s-openapi's types, which has neither narrow types, HTTP/2 nor (on watches) compression.

| what | goal | here | kube-rs | ratio |
| --- | --- | --- | --- | --- |
{}
",
        rows.join("\n")
    ))
}

/// What a first program took to build.
struct Build {
    crates: usize,
    cpu: Duration,
    clock: Duration,
    bytes: u64,
}

impl Build {
    fn cold(package: &str) -> Result<Build, String> {
        let folder = target().join("tools").join(format!("cold-{package}"));
        let _ = std::fs::remove_dir_all(&folder);
        output(beside().args(["fetch", "--locked"]))?;
        let (begun, before) = (Instant::now(), cpu_of_children());
        let mut build = beside();
        build.args(["build", "--release", "--quiet", "--locked", "--package", package, "--target-dir"]).arg(&folder);
        output(&mut build)?;
        let (clock, cpu) = (begun.elapsed(), cpu_of_children() - before);
        let program: PathBuf = folder.join("release").join(package);
        output(Command::new("strip").arg(&program))?;
        let bytes = std::fs::metadata(&program).map_err(|e| e.to_string())?.len();
        let crates = crates(beside().args(["tree", "--locked", "--package", package]))?;
        let _ = std::fs::remove_dir_all(&folder);
        Ok(Build { crates, cpu, clock, bytes })
    }
}

/// How many crates `cargo tree` finds, the package itself among them.
fn crates(tree: &mut Command) -> Result<usize, String> {
    let said = output(tree.args(["--edges", "normal", "--prefix", "none", "--no-dedupe"]))?;
    let named = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    Ok(said.lines().map(named).collect::<BTreeSet<_>>().len())
}

/// Of this process' children that have ended, and theirs.
fn cpu_of_children() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in parentheses, may hold anything.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks: u64 = after.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_A_SECOND)
}

/// Cargo, in the workspace of the programs.
fn beside() -> Command {
    let mut command = cargo();
    command.current_dir(workspace().join("crates/testkit/beside"));
    command
}

fn output(command: &mut Command) -> Result<String, String> {
    output_bytes(command).map(|said| String::from_utf8_lossy(&said).into_owned())
}

fn output_bytes(command: &mut Command) -> Result<Vec<u8>, String> {
    let program = format!("{command:?}");
    let done = command.stderr(Stdio::inherit()).output().map_err(|e| format!("{program}: {e}"))?;
    match done.status.success() {
        true => Ok(done.stdout),
        false => Err(format!("{program} ended with {}", done.status)),
    }
}

/// What a program that reads all of its input before it writes makes of this.
fn piped(command: &mut Command, input: Vec<u8>) -> Result<Vec<u8>, String> {
    let program = format!("{command:?}");
    let wrong = |why: std::io::Error| format!("{program}: {why}");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(wrong)?;
    child.stdin.take().expect("piped").write_all(&input).map_err(wrong)?;
    let done = child.wait_with_output().map_err(wrong)?;
    match done.status.success() {
        true => Ok(done.stdout),
        false => Err(format!("{program} ended with {}", done.status)),
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// Puts the part in its place: that of its last writing, or the end.
fn write(text: &str) {
    let path: &Path = &workspace().join("docs/benchmarks.md");
    let before = std::fs::read_to_string(path).unwrap_or_default();
    let (above, below) = match before.split_once(HEADING) {
        None => (before.as_str(), ""),
        Some((above, rest)) => (above, rest.find("\n## ").map_or("", |at| &rest[at..])),
    };
    if let Err(error) = std::fs::write(path, format!("{}\n{text}{below}", above.trim_end())) {
        eprintln!("{}: {error}", path.display());
    }
}
