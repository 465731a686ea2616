//! Installs the real clients that tests run under `target/tools`: once, again only when their sources change. Never
//! touches anything outside `target`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::{target, workspace};

/// Before kubectl's version in `go.mod`: module 0.37.2 is what users know as 1.37.2.
const KUBECTL_MODULE: &str = "k8s.io/kubectl v";

/// Installs the client whose sources lie in the first folder into the second.
type Install = fn(&Path, &Path) -> Result<(), String>;

/// What is mostly fetched goes beside what is mostly compiled.
const FETCHED: [(&str, Install); 4] =
    [("python", python), ("javascript", javascript), ("java", java), ("containerd", containerd)];
const COMPILED: [(&str, Install); 2] = [("rust", rust), ("go", go)];

/// Installs these clients, or every one, and nothing else.
pub fn run(names: &[String]) -> ExitCode {
    if names.is_empty() {
        return if install() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut all_there = true;
    for name in names {
        match FETCHED.iter().chain(&COMPILED).find(|(known, _)| known == name) {
            Some((name, install)) => all_there &= is_there(name, *install),
            None => {
                eprintln!("clients: there is no {name}");
                return ExitCode::from(2);
            }
        }
    }
    if all_there { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Installs every client; whether all are there. One that cannot be installed is told, and fails the tests that need it.
pub fn install() -> bool {
    std::thread::scope(|scope| {
        let lanes = [&FETCHED[..], &COMPILED[..]]
            .map(|lane| scope.spawn(|| lane.iter().filter(|(name, install)| !is_there(name, *install)).count()));
        lanes.into_iter().map(|lane| lane.join().unwrap_or(1)).sum::<usize>() == 0
    })
}

/// Installs one client unless it is there; whether it is then.
fn is_there(name: &str, install: Install) -> bool {
    let from = workspace().join("crates/testkit/clients").join(name);
    let tools = target().join("tools");
    let stamp = tools.join(format!("{name}.stamp"));
    let wanted = fingerprint(&from);
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        eprintln!("clients: {name} is there");
        return true;
    }
    eprintln!("clients: installing {name}");
    let begin = Instant::now();
    let made = std::fs::create_dir_all(&tools).map_err(|e| e.to_string());
    match made.and_then(|()| install(&from, &tools)) {
        Ok(()) => {
            let _ = std::fs::write(&stamp, wanted);
            eprintln!("clients: {name} installed in {:.1} s", begin.elapsed().as_secs_f64());
            true
        }
        Err(why) => {
            eprintln!("clients: {name} could not be installed: {why}");
            eprintln!("clients: the tests that run it will fail; KEMUDI_SKIP_CLIENTS=1 goes without them");
            false
        }
    }
}

fn python(from: &Path, tools: &Path) -> Result<(), String> {
    let venv = tools.join("python");
    done(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    done(pip.arg(from.join("requirements.txt")))
}

fn javascript(from: &Path, tools: &Path) -> Result<(), String> {
    let folder = tools.join("javascript");
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    for file in files(from) {
        let to = folder.join(file.file_name().expect("a file"));
        std::fs::copy(&file, to).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--omit=dev", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]);
    done(npm.current_dir(folder))
}

/// A container runtime out of Debian's packages, unpacked and not installed. Where there is no apt-get nothing is there, and the tests
/// that need it say so and pass.
fn containerd(from: &Path, tools: &Path) -> Result<(), String> {
    if Command::new("apt-get").arg("--version").output().is_err() {
        eprintln!("clients: containerd is left out: it comes from Debian's packages, and this machine has no apt-get");
        return Ok(());
    }
    let folder = tools.join("containerd");
    let _ = std::fs::remove_dir_all(&folder);
    let packages = folder.join("packages");
    std::fs::create_dir_all(&packages).map_err(|e| e.to_string())?;
    let wanted = std::fs::read_to_string(from.join("packages.txt")).map_err(|e| e.to_string())?;
    let download = || {
        let mut apt = Command::new("apt-get");
        done(apt.args(["download", "--quiet=2"]).args(wanted.split_whitespace()).current_dir(&packages))
    };
    // A machine that has never asked does not know what there is.
    download().or_else(|_| done(Command::new("apt-get").args(["update", "--quiet=2"])).and_then(|()| download()))?;
    for package in files(&packages) {
        done(Command::new("dpkg").arg("-x").arg(package).arg(&folder))?;
    }
    std::fs::remove_dir_all(packages).map_err(|e| e.to_string())
}

fn go(from: &Path, tools: &Path) -> Result<(), String> {
    let modules = std::fs::read_to_string(from.join("go.mod")).map_err(|e| e.to_string())?;
    let version = modules.lines().find_map(|line| line.trim().strip_prefix(KUBECTL_MODULE));
    let version = version.ok_or_else(|| format!("no {KUBECTL_MODULE}... in go.mod"))?;
    let (major, minor) = (1, version.split('.').nth(1).unwrap_or_default());
    let set = "-X k8s.io/component-base/version.git";
    let linker = format!("-s -w {set}Version=v1.{} {set}Major={major} {set}Minor={minor}", &version[2..]);
    let mut build = Command::new("go");
    build.args(["build", "-p", "2", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", &linker, "-o"]);
    // Without cgo the programs need nothing of the machine they run on.
    build.arg(tools.join("bin/")).arg("./...").current_dir(from).env("CGO_ENABLED", "0").env("GOFLAGS", "");
    std::fs::create_dir_all(tools.join("bin")).map_err(|e| e.to_string())?;
    done(&mut build)
}

/// The client's jars, and our sources compiled beside them: a whole Maven build would fetch five times as much.
fn java(from: &Path, tools: &Path) -> Result<(), String> {
    let folder = tools.join("java");
    let (jars, classes) = (folder.join("lib"), folder.join("classes"));
    for old in [&jars, &classes] {
        let _ = std::fs::remove_dir_all(old);
    }
    std::fs::create_dir_all(&classes).map_err(|e| e.to_string())?;
    let mut maven = Command::new("mvn");
    maven.args(["--batch-mode", "--quiet", "--file"]).arg(from.join("pom.xml"));
    maven.arg(define("maven.repo.local", &folder.join("repository"))).arg("dependency:copy-dependencies");
    done(maven.arg("-DincludeScope=runtime").arg(define("outputDirectory", &jars)))?;
    let mut compiler = Command::new("javac");
    let sources = files(from).into_iter().filter(|file| file.extension().is_some_and(|end| end == "java"));
    compiler.arg("-cp").arg(jars.join("*")).arg("-d").arg(classes).args(sources);
    done(&mut compiler)
}

fn define(name: &str, value: &Path) -> String {
    format!("-D{name}={}", value.display())
}

fn rust(from: &Path, tools: &Path) -> Result<(), String> {
    let mut build = crate::cargo();
    build.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(from.join("Cargo.toml"));
    done(build.arg("--target-dir").arg(tools.join("rust")))
}

/// What an installation was made from, and where it lies: a moved virtual environment is a broken one.
fn fingerprint(from: &Path) -> String {
    let mut out = format!("{}\n", target().display());
    for file in files(from) {
        out.push_str(&file.strip_prefix(from).unwrap_or(&file).display().to_string());
        out.push('\n');
        out.push_str(&std::fs::read_to_string(&file).unwrap_or_default());
    }
    out
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().filter_map(Result::ok);
    all.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}

fn done(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} ended with {status}")),
        Err(error) => Err(format!("{program}: {error}")),
    }
}
