//! The tour and `run`, as root and as an ordinary user of the machine.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use testkit::command::{Finished, RUN_LIMIT, kemudi, run};

/// Nobody in particular: a user without a name, without rights.
const ORDINARY: u32 = 12345;

/// What the tour must have shown, in this order.
const SHOWN: &[&str] = &[
    "10.96.0.1:443",
    "kubernetes.default.svc.cluster.local",
    "APIVersions",
    "system:serviceaccount:default:default",
    "cannot list resource",
    "demo-role-binding",
    "PodList",
    "Running",
    "system:serviceaccount:default:demo-sa",
    r#"serviceaccount "nobody" not found"#,
    "No such file or directory",
    "kind: Role",
    "rights: may list pods",
];

#[test]
fn the_tour_shows_the_tutorial() {
    shows_it_all(run(Command::new(kemudi()).arg("tour"), "", RUN_LIMIT));
}

#[test]
fn the_tour_needs_no_root() {
    shows_it_all(as_ordinary_user(&["tour"]));
}

#[test]
fn a_command_in_a_pod_has_its_own_exit_code_and_no_rights_it_was_not_given() {
    let seen = as_ordinary_user(&["run", "--allow", "list pods", "--", "sh", "-c", "hostname; exit 7"]);
    assert!(seen.exits(7).stdout.starts_with("sh-"));
}

#[track_caller]
fn shows_it_all(tour: Finished) {
    let text = tour.ok();
    let mut rest = text.as_str();
    for wanted in SHOWN {
        let at = rest.find(wanted).unwrap_or_else(|| panic!("{wanted} is missing, or in another place:\n{text}"));
        rest = &rest[at..];
    }
}

/// Runs the program as somebody who is not root. Where the tests are nobody in particular themselves, as they are.
#[track_caller]
fn as_ordinary_user(args: &[&str]) -> Finished {
    let home = tempfile::tempdir().expect("a temporary folder");
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o777)).expect("a folder of ours");
    // The folder it was built in may be closed to others.
    let program = home.path().join("kemudi");
    std::fs::copy(kemudi(), &program).expect("the built program");
    let mut command = Command::new(&program);
    command.args(args).current_dir(home.path()).env("HOME", home.path());
    if rustix::process::getuid().is_root() {
        command.uid(ORDINARY).gid(ORDINARY);
    }
    run(&mut command, "", RUN_LIMIT)
}
