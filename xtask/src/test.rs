//! `cargo xtask test`: what the tests need, then all tests, then one line that sums them up.

use std::io::{BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};

use crate::{cargo, clients, small};

/// Runs `cargo test --workspace` with these further arguments; its exit code is passed on.
pub fn run(args: &[String]) -> ExitCode {
    std::thread::scope(|scope| {
        // What compiles does not always have work for every core, nor does what fetches: the tests are built beside the rest. Where
        // they cannot be, the run says why.
        scope.spawn(|| cargo().args(["test", "--workspace", "--no-run", "--quiet"]).args(before_tests(args)).status());
        if std::env::var("KEMUDI_SKIP_CLIENTS").is_ok_and(|value| value == "1") {
            eprintln!("clients: none, as KEMUDI_SKIP_CLIENTS=1 says");
        } else {
            clients::install();
            eprintln!("tests: building kemudi-pod as it is carried into pods");
            if let Err(why) = small::build() {
                eprintln!("kemudi-pod: {why}; the test that runs it will fail");
            }
        }
    });
    eprintln!("tests: cargo test --workspace");
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]).args(args).stdout(Stdio::piped());
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        command.env("RUST_TEST_THREADS", threads().to_string());
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("cargo: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut total = Total::default();
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&line);
        let _ = out.flush();
        total.add(&String::from_utf8_lossy(&line));
        line.clear();
    }
    let status = child.wait();
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.ignored);
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("cargo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Tests that run at a time: one more than there are cores, as most of them wait for processes, files and sockets for a good part of
/// their time.
fn threads() -> usize {
    1 + std::thread::available_parallelism().map_or(1, |cores| cores.get())
}

/// Of arguments to `cargo test` those that are its own, not the tests'.
fn before_tests(args: &[String]) -> &[String] {
    args.split(|arg| arg == "--").next().unwrap_or_default()
}

/// The sum of the runners' own closing lines.
#[derive(Default)]
struct Total {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Total {
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.split_once("test result: ") else { return };
        for part in counts.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(count), Some(what)) = (words.next().and_then(|n| n.parse::<usize>().ok()), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Total, before_tests};

    #[test]
    fn what_is_behind_the_dashes_is_not_cargos() {
        let check = |args: &str, want: &str| {
            let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
            assert_eq!(before_tests(&args).join(" "), want);
        };
        check("", "");
        check("--release t13", "--release t13");
        check("t13 -- --nocapture --", "t13");
        check("-- t13", "");
    }

    #[test]
    fn closing_lines_are_summed() {
        let mut total = Total::default();
        total.add("test a ... ok\n");
        total.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n");
        total
            .add("test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s\n");
        assert_eq!((total.passed, total.failed, total.ignored), (7, 2, 1));
    }
}
