//! Rules of the source tree that a machine can hold: floors, opening words, dead files, and nothing of the machine it was
//! written on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use regex::Regex;
use testkit::command::workspace;
use walkdir::WalkDir;

/// A crate uses only crates of lower floors, in its tests too.
const FLOORS: [(&str, u8); 14] = [
    ("api", 0),
    ("descriptions", 0),
    ("images", 0),
    ("store", 0),
    ("streams", 0),
    ("kinds", 1),
    ("rights", 1),
    ("client", 1),
    ("server", 2),
    ("controllers", 2),
    ("node", 2),
    ("pod", 2),
    ("kemudi", 3),
    ("testkit", 4),
];

/// Text that is true on one machine or in one network only.
static FOREIGN: LazyLock<Regex> = LazyLock::new(|| {
    let words = [
        r#"(?:^|[\s"'(=`:])/work/(?:main|shared|\.library)"#,
        r"/home/[a-z]+/",
        r"/root/\.",
        r"proxy\.golang\.",
        r"pypi\.org",
        r"pythonhosted",
        r"registry\.npmjs",
        r"(static|index)\.crates\.io",
        r"deb\.debian\.org",
        r"repo1?\.maven",
    ];
    Regex::new(&words.join("|")).expect("a constant")
});

static MODULE: LazyLock<Regex> = LazyLock::new(|| {
    let text = r#"(?m)^\s*(?:#\[path = "([^"]+)"\]\s*)?(?:#\[[^\n]*\]\s*)*(?:pub(?:\([^)]*\))? )?mod (\w+);"#;
    Regex::new(text).expect("a constant")
});

static INCLUDE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"include!\("([^"]+)"\)"#).expect("a constant"));

#[test]
fn crates_use_only_lower_floors() {
    let floor = |name: &str| FLOORS.iter().find(|(crate_name, _)| *crate_name == name).map(|(_, floor)| *floor);
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(workspace().join("crates")).expect("the source tree") {
        let name = entry.expect("the source tree").file_name().to_string_lossy().into_owned();
        let own = floor(&name).unwrap_or_else(|| panic!("crates/{name} has no floor: add it to FLOORS"));
        let manifest = read(&workspace().join("crates").join(&name).join("Cargo.toml"));
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let used = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let used = if used == "kemudi" { Some(used) } else { used.strip_prefix("kemudi-") };
            let (true, Some(used)) = (section.contains("dependencies"), used) else { continue };
            let theirs = floor(used).unwrap_or_else(|| panic!("crates/{name} uses {used}, which has no floor"));
            if theirs >= own {
                wrong.push(format!("crates/{name} (floor {own}) uses {used} (floor {theirs}) under {section}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Crates that a program is built of for the client library with its default features, which itself is one.
const CLIENT_CRATES_MAX: usize = 50;

#[test]
fn the_client_is_built_of_few_crates() {
    let mut tree = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    tree.args(["tree", "--offline", "--package", "kemudi-client", "--edges", "normal"]);
    tree.args(["--prefix", "none", "--no-dedupe"]).current_dir(workspace());
    let said = tree.output().expect("cargo is there");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let crates: BTreeSet<_> = text.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    assert!(crates.len() <= CLIENT_CRATES_MAX, "{} crates: {crates:#?}", crates.len());
}

#[test]
fn every_module_says_what_it_is() {
    let silent: Vec<_> = rust_files().into_iter().filter(|f| !read(f).starts_with("//! ")).map(shown).collect();
    assert!(silent.is_empty(), "begin with `//!`, what the module is and what it never does:\n{}", silent.join("\n"));
}

#[test]
fn every_rust_file_is_compiled() {
    let files = rust_files();
    let mut reached = BTreeSet::new();
    let mut open: Vec<PathBuf> = files.iter().filter(|f| is_root(f)).cloned().collect();
    while let Some(file) = open.pop() {
        if !reached.insert(file.clone()) {
            continue;
        }
        let text = read(&file);
        let folder = file.parent().expect("a file is in a folder");
        let inner =
            if is_root(&file) || file.ends_with("mod.rs") { folder.to_owned() } else { file.with_extension("") };
        for found in MODULE.captures_iter(&text) {
            let name = &found[2];
            let places = match found.get(1) {
                Some(path) => vec![folder.join(path.as_str())],
                None => vec![inner.join(format!("{name}.rs")), inner.join(name).join("mod.rs")],
            };
            open.extend(places.into_iter().filter(|place| place.exists()));
        }
        open.extend(INCLUDE.captures_iter(&text).map(|c| folder.join(&c[1])).filter(|place| place.exists()));
    }
    let dead: Vec<_> = files.into_iter().filter(|f| !reached.contains(f)).map(shown).collect();
    assert!(dead.is_empty(), "no `mod` line leads to:\n{}", dead.join("\n"));
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let mut wrong = Vec::new();
    for file in files().filter(|f| !f.ends_with("Cargo.lock") && !f.ends_with("it/tidy.rs")) {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let lines = text.lines().enumerate().filter(|(_, line)| FOREIGN.is_match(line));
        wrong.extend(lines.map(|(i, line)| format!("{}:{}: {}", shown(file.clone()), i + 1, line.trim())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where the compiler starts to read.
fn is_root(file: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = file.parent().map(name).unwrap_or_default();
    let top = file.parent().and_then(Path::parent).is_some_and(|up| up.join("Cargo.toml").exists());
    match (folder.as_str(), name(file).as_str()) {
        ("src", "lib.rs" | "main.rs") | ("it", "main.rs") => true,
        (_, "build.rs") => file.with_file_name("Cargo.toml").exists(),
        ("tests" | "examples" | "benches" | "fuzz_targets", _) => top,
        ("bin", _) => true,
        _ => false,
    }
}

fn rust_files() -> Vec<PathBuf> {
    files().filter(|file| file.extension().is_some_and(|e| e == "rs")).collect()
}

/// Every file of the source tree but the recordings, which are facts and stay as they are.
fn files() -> impl Iterator<Item = PathBuf> {
    const NOT_OURS: [&str; 4] = [".git", "target", "node_modules", "corpus"];
    let ours = |entry: &walkdir::DirEntry| !NOT_OURS.iter().any(|name| entry.file_name() == *name);
    let all = WalkDir::new(workspace()).sort_by_file_name().into_iter().filter_entry(ours);
    all.filter_map(Result::ok).filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path)
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

fn shown(file: PathBuf) -> String {
    file.strip_prefix(workspace()).unwrap_or(&file).display().to_string()
}
