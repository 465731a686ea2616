//! The crate's integration tests.

mod agent;
mod fake_api;
mod sandbox;

/// A copy of this program in `dir`, where every user can run it: the tree may be in a directory of one user's own.
fn program_for_all(dir: &std::path::Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let copy = dir.join("program");
    // By another process: while we had it open for writing, a test beside this one could fork, and nobody execute it.
    let status = std::process::Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&copy).status();
    assert!(status.unwrap().success());
    for path in [dir, &copy] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    copy
}
