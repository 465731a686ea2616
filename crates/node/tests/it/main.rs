//! The crate's integration tests.

mod agent;
mod fake_api;
mod sandbox;

/// A copy of this program in `dir`, where every user can run it: the tree may be in a directory of one user's own.
fn program_for_all(dir: &std::path::Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let copy = dir.join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    for path in [dir, &copy] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    copy
}
