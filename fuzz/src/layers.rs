//! Layers of container images, as anybody may have made them: whatever they hold, nothing outside of their folder changes.

use std::fs;

use crate::tape::Tape;

/// Steps of paths, and of where links lead.
const STEPS: &[&str] = &["a", "b", "c", "..", ".", "", "out", ".wh.a", ".wh..wh..opq", "a/b", "../out", "/"];
/// Entries of one archive.
const ENTRIES_MAX: usize = 12;

/// An archive of a few entries that point at each other and out, or the bytes themselves as one.
pub fn layers(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let archive = match tape.chance(32) {
        true => bytes.to_vec(),
        false => archive(&mut tape),
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (inside, outside) = (folder.path().join("inside"), folder.path().join("out"));
    fs::create_dir(&inside).expect("it is ours");
    fs::create_dir(&outside).expect("it is ours");
    fs::write(outside.join("a"), "kept").expect("it is ours");
    let _ = images::unpack(archive.as_slice(), &inside);
    let names = |path| fs::read_dir(path).map_or(0, |entries| entries.count());
    assert_eq!((names(folder.path()), names(&outside)), (2, 1), "something was made outside");
    assert_eq!(fs::read(outside.join("a")).ok().as_deref(), Some(&b"kept"[..]));
    assert!(fs::metadata(outside.join("a")).is_ok_and(|about| std::os::unix::fs::MetadataExt::nlink(&about) == 1));
    images::remove_tree(&inside).expect("whatever is in it can be taken away");
}

fn archive(tape: &mut Tape<'_>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for _ in 0..tape.below(ENTRIES_MAX + 1) {
        let mut header = tar::Header::new_ustar();
        // As bytes: the setters refuse what is wanted here.
        let (path, link) = (path(tape), path(tape));
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(tape.one_of(b"0125346")));
        header.set_mode(tape.one_of(&[0o755, 0, 0o4777, 0o111]));
        header.set_uid(0);
        header.set_gid(0);
        let text = tape.one_of(&["", "x"]);
        header.set_size(text.len() as u64);
        header.set_cksum();
        if archive.append(&header, text.as_bytes()).is_err() {
            break;
        }
    }
    archive.into_inner().unwrap_or_default()
}

fn path(tape: &mut Tape<'_>) -> String {
    (0..1 + tape.below(4)).map(|_| tape.one_of(STEPS)).collect::<Vec<_>>().join("/")
}
