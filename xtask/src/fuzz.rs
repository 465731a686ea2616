//! `cargo xtask fuzz`: lets libFuzzer look for inputs that break a target, with the stable toolchain. Inputs that it keeps
//! and findings lie under `target/fuzz`; the committed corpus is only read.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::{target, workspace};

/// How long each target runs where nothing else is said.
const SECONDS: u64 = 180;
/// Longest input that is made.
const INPUT_BYTES_MAX: u32 = 4096;
/// Memory at which an input counts as a finding, and the time that one may take.
const MEMORY_MB_MAX: u32 = 2048;
const INPUT_SECONDS_MAX: u32 = 20;

/// What makes a program tell libFuzzer which of its edges an input took, and what it compared. Sanitizers would need
/// another toolchain; there is next to no `unsafe` code behind these targets.
const INSTRUMENTED: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Runs the named targets, or all of them one after the other, and sums each up in a line.
pub fn run(args: &[String]) -> ExitCode {
    let (mut names, mut seconds) = (Vec::new(), SECONDS);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seconds" => match args.next().and_then(|text| text.parse().ok()) {
                Some(given) => seconds = given,
                None => return refused("--seconds wants a number"),
            },
            name => names.push(name.to_owned()),
        }
    }
    let all = targets();
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        return refused(&format!("{unknown} is no target; there are: {}", all.join(" ")));
    }
    let engine = match build() {
        Ok(engine) => engine,
        Err(why) => return refused(&why),
    };
    let mut clean = true;
    for name in if names.is_empty() { &all } else { &names } {
        clean &= fuzz(&engine, name, seconds);
    }
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn refused(why: &str) -> ExitCode {
    eprintln!("fuzz: {why}");
    ExitCode::from(2)
}

fn corpus() -> PathBuf {
    workspace().join("fuzz/corpus")
}

/// Each target has its folder in the corpus.
fn targets() -> Vec<String> {
    let entries = std::fs::read_dir(corpus()).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The program with libFuzzer in it, built for this machine with its edges counted.
fn build() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let triple = host(&cargo)?;
    let folder = target().join("fuzz");
    // Flags count for what is built for a named target only: not for build scripts, which libFuzzer is no part of.
    let mut build = Command::new(&cargo);
    build.current_dir(workspace().join("fuzz/engine")).args([
        "build",
        "--release",
        "--target",
        &triple,
        "--target-dir",
    ]);
    build.arg(&folder).env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTED.join("\x1f"));
    match build.status() {
        Ok(status) if status.success() => Ok(folder.join(triple).join("release/kemudi-fuzz-engine")),
        Ok(_) => Err("the engine was not built; it needs a C++ compiler".to_owned()),
        Err(why) => Err(format!("cargo: {why}")),
    }
}

fn host(cargo: &std::ffi::OsStr) -> Result<String, String> {
    let output = Command::new(cargo).args(["version", "--verbose"]).output().map_err(|why| format!("cargo: {why}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "cargo does not say what it builds for".to_owned())
}

fn fuzz(engine: &Path, name: &str, seconds: u64) -> bool {
    let folder = target().join("fuzz");
    let (kept, findings, log) =
        (folder.join("kept").join(name), folder.join("findings"), folder.join(format!("{name}.log")));
    for folder in [&kept, &findings] {
        if let Err(why) = std::fs::create_dir_all(folder) {
            eprintln!("fuzz: {}: {why}", folder.display());
            return false;
        }
    }
    let output = std::fs::File::create(&log).and_then(|log| Ok((log.try_clone()?, log)));
    let Ok((stdout, stderr)) = output else { return false };
    let mut run = Command::new(engine);
    run.env("KEMUDI_FUZZ_TARGET", name).stdout(stdout).stderr(stderr);
    run.arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MB_MAX}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg("-use_value_profile=1")
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix={}/{name}-", findings.display()));
    let status = run.arg(&kept).arg(corpus().join(name)).status();
    let text = std::fs::read(&log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let stat = |what: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(what)).map(str::trim);
        value.unwrap_or("?").to_owned()
    };
    let clean = status.is_ok_and(|status| status.success());
    let inputs = std::fs::read_dir(&kept).map_or(0, Iterator::count);
    let runs = stat("stat::number_of_executed_units:");
    match clean {
        true => println!("{name}: {runs} executions, {inputs} inputs kept, no finding"),
        false => println!("{name}: {runs} executions, a finding: read {}", log.display()),
    }
    clean
}
