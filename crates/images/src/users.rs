//! Who a container of an image runs as: users and groups by the image's own files, as container runtimes look them up.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::store::read_bounded;
use crate::{Error, Image, Store};

/// `/etc/passwd` and `/etc/group` of an image, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A user as a process has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    /// Further groups, as `/etc/group` has them.
    pub groups: Vec<u32>,
    /// Empty where the image does not say.
    pub home: String,
}

impl Store {
    /// The user of a text like `user`, `uid`, `user:group`, `uid:gid`; nobody named is root.
    ///
    /// # Errors
    /// A name that the image does not have.
    pub fn account(&self, image: &Image, text: &str) -> Result<Account, Error> {
        let layers = self.layers(image);
        let passwd = file_of(&layers, "etc/passwd")?;
        let group = file_of(&layers, "etc/group")?;
        find(text, &passwd, &group)
    }
}

fn find(text: &str, passwd: &str, group: &str) -> Result<Account, Error> {
    let (user, wanted_group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let user = if user.is_empty() { "0" } else { user };
    let number: Option<u32> = user.parse().ok();
    let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        let has_id = || fields.get(2).and_then(|uid| uid.parse().ok()) == number;
        fields.first() == Some(&user) || number.is_some() && has_id()
    });
    let field = |nth: usize| line.as_ref().and_then(|fields| fields.get(nth).copied());
    let uid = field(2).and_then(|uid| uid.parse().ok()).or(number);
    let uid =
        uid.ok_or_else(|| Error::Invalid(format!("unable to find user {user}: no matching entries in passwd file")))?;
    let groups = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let id_of = |fields: &[&str]| fields.get(2).and_then(|gid| gid.parse::<u32>().ok());
    let gid = match wanted_group.filter(|group| !group.is_empty()) {
        None => field(3).and_then(|gid| gid.parse().ok()).unwrap_or(0),
        Some(wanted) => {
            let named = groups.clone().find(|fields| fields.first() == Some(&wanted)).and_then(|fields| id_of(&fields));
            named.or(wanted.parse().ok()).ok_or_else(|| {
                Error::Invalid(format!("unable to find group {wanted}: no matching entries in group file"))
            })?
        }
    };
    let member = field(0).filter(|_| wanted_group.is_none()).unwrap_or_default();
    let has_member =
        |fields: &Vec<&str>| fields.get(3).is_some_and(|members| members.split(',').any(|it| it == member));
    let further = groups.filter(|_| !member.is_empty()).filter(has_member).filter_map(|fields| id_of(&fields));
    Ok(Account {
        uid,
        gid,
        groups: further.filter(|further| *further != gid).collect(),
        home: field(5).unwrap_or_default().to_owned(),
    })
}

/// A file as the topmost layer that speaks of it has it; empty where none does.
fn file_of(layers: &[PathBuf], path: &str) -> Result<String, Error> {
    for layer in layers.iter().rev() {
        // A link could lead out of the layer; the file is hardly ever one.
        let Some(about) = about(layer, Path::new(path)) else { continue };
        return match about.is_file() {
            true => Ok(String::from_utf8_lossy(&read_bounded(&layer.join(path), FILE_BYTES_MAX)?).into_owned()),
            false => Ok(String::new()),
        };
    }
    Ok(String::new())
}

/// What is at a path of a layer, when every folder on the way is one, or the removal that hides it.
fn about(layer: &Path, path: &Path) -> Option<fs::Metadata> {
    let mut here = layer.to_path_buf();
    let mut found = None;
    for part in path {
        here.push(part);
        let about = here.symlink_metadata().ok()?;
        if about.file_type().is_char_device() || about.is_symlink() {
            return Some(about);
        }
        found = Some(about);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:82:Web:/srv:/bin/false\nbad line\n";
    const GROUP: &str = "root:x:0:\nwww:x:82:\nlogs:x:90:web,other\n";

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got = match find(text, PASSWD, GROUP) {
            Ok(Account { uid, gid, groups, home }) => format!("{uid}:{gid} {groups:?} {home}"),
            Err(why) => why.to_string(),
        };
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn users_are_looked_up_as_runtimes_do() {
        check("", "0:0 [] /root");
        check("web", "101:82 [90] /srv");
        check("101", "101:82 [90] /srv");
        check("web:logs", "101:90 [] /srv");
        check("1000", "1000:0 [] ");
        check("1000:2000", "1000:2000 [] ");
        check("1000:www", "1000:82 [] ");
        check("nobody", "unable to find user nobody: no matching entries in passwd file");
        check("web:none", "unable to find group none: no matching entries in group file");
    }
}
