//! `kemudi cp`: files to and from a container, in a tar archive that the container's own `tar` packs or unpacks, as kubectl does it.
//! Never writes outside of the place that it was told.

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use clap::Args;
use kemudi_client::remote::{Incoming, Outgoing};
use kemudi_client::{Api, Dynamic, RemoteOptions};
use tokio::io::AsyncReadExt;
use tokio_util::io::SyncIoBridge;

use super::{Failure, Global, Outcome, pods};

/// What is read of the complaints of the container's `tar`, in bytes.
const COMPLAINT_BYTES_MAX: u64 = 64 * 1024;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kemudi cp app.toml web:/etc/app.toml
  kemudi cp team/web:/var/log/app logs -c main       from a pod of another namespace
The container needs `tar`. Links and devices are not copied from a pod.")]
pub struct Cp {
    /// FILE, or [NAMESPACE/]POD:FILE
    #[arg(value_name = "FROM")]
    from: String,
    /// FILE, or [NAMESPACE/]POD:FILE
    #[arg(value_name = "TO")]
    to: String,
    /// Container, where the pod has several
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Leave owner and permissions to the container's own choice
    #[arg(long)]
    no_preserve: bool,
}

/// One end of a copy.
#[derive(Debug, PartialEq)]
enum Place {
    Here(PathBuf),
    Pod { namespace: Option<String>, pod: String, path: String },
}

impl Place {
    fn parse(word: &str) -> Outcome<Place> {
        // What has a slash before its first colon, and more than one, is a path.
        let Some((pod, path)) = word.split_once(':').filter(|(pod, _)| !pod.is_empty() && !pod.starts_with(['/', '.']))
        else {
            return Ok(Place::Here(word.into()));
        };
        let (namespace, pod) = match pod.split('/').collect::<Vec<_>>()[..] {
            [pod] => (None, pod),
            [namespace, pod] => (Some(namespace.to_string()), pod),
            _ => return Ok(Place::Here(word.into())),
        };
        match path {
            "" => Err(Failure::new(format!("{word:?} names no file")).hint("write POD:/path/to/file")),
            path => Ok(Place::Pod { namespace, pod: pod.to_string(), path: path.to_string() }),
        }
    }
}

impl Cp {
    pub async fn run(self, global: &Global) -> Outcome {
        match (Place::parse(&self.from)?, Place::parse(&self.to)?) {
            (Place::Here(from), Place::Pod { namespace, pod, path }) => {
                let there = self.there(global, namespace, &pod).await?;
                there.send(&from, &path, self.no_preserve).await
            }
            (Place::Pod { namespace, pod, path }, Place::Here(to)) => {
                let there = self.there(global, namespace, &pod).await?;
                there.fetch(&path, to).await
            }
            _ => Err(Failure::new("one of the two must be a file here and the other a file in a pod")
                .hint("kemudi cp FILE POD:FILE, or kemudi cp POD:FILE FILE")),
        }
    }

    async fn there(&self, global: &Global, namespace: Option<String>, pod: &str) -> Outcome<There> {
        let client = global.client()?;
        let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_string());
        let api = pods::api(client, &namespace);
        let found = pods::find(&api, pod, &namespace).await?;
        let container = pods::container(&found, self.container.as_ref())?;
        Ok(There { api, pod: api::meta::name(&found).to_string(), container })
    }
}

/// The container at the other end.
struct There {
    api: Api<Dynamic>,
    pod: String,
    container: String,
}

impl There {
    fn options(&self, stdin: bool) -> RemoteOptions {
        RemoteOptions { container: Some(self.container.clone()), stdin, ..RemoteOptions::output() }
    }

    async fn send(&self, from: &Path, to: &str, no_preserve: bool) -> Outcome {
        if let Err(why) = std::fs::symlink_metadata(from) {
            return Err(Failure::new(format!("{}: {why}", from.display())));
        }
        let name = base(from)?;
        let mut to = to.to_string();
        if to.ends_with('/') || self.is_folder(&to).await? {
            to = format!("{}/{name}", to.trim_end_matches('/'));
        }
        let (folder, name) = match to.rsplit_once('/') {
            Some(("", name)) => ("/", name),
            Some((folder, name)) => (folder, name),
            None => (".", to.as_str()),
        };
        let mut words = vec!["tar"];
        if no_preserve {
            words.extend(["--no-same-permissions", "--no-same-owner"]);
        }
        words.extend(["-xmf", "-", "-C", folder]);
        let mut session = self.api.exec(&self.pod, &words, &self.options(true)).await?;
        let stdin = session.take_stdin();
        let (from, name) = (from.to_path_buf(), name.to_string());
        let packing = tokio::task::spawn_blocking(move || pack(stdin, &from, &name));
        let ended = self.ended(session).await;
        let packed = packing.await.map_err(Failure::new)?;
        // Where the other side has given up, its reason is the better one.
        ended?;
        Ok(packed?)
    }

    async fn fetch(&self, from: &str, to: PathBuf) -> Outcome {
        let name = base(Path::new(from))?;
        let to = if to.is_dir() { to.join(name) } else { to };
        let mut session = self.api.exec(&self.pod, &["tar", "cf", "-", from], &self.options(false)).await?;
        let stdout = session.take_stdout();
        let prefix = from.trim_start_matches('/').trim_end_matches('/').to_string();
        let unpacking = tokio::task::spawn_blocking(move || unpack(stdout, Path::new(&prefix), &to));
        let ended = self.ended(session).await;
        let unpacked = unpacking.await.map_err(Failure::new)?;
        ended?;
        Ok(unpacked?)
    }

    async fn is_folder(&self, path: &str) -> Outcome<bool> {
        let session = self.api.exec(&self.pod, &["test", "-d", path], &self.options(false)).await?;
        let (outcome, _, _) = session.output().await?;
        Ok(outcome == kemudi_client::Outcome::Success)
    }

    /// Waits until the container's `tar` is done.
    async fn ended(&self, mut session: kemudi_client::Remote) -> Outcome {
        let mut complaint = Vec::new();
        if let Some(stderr) = session.take_stderr() {
            let _ = stderr.take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint).await;
        }
        let complaint = String::from_utf8_lossy(&complaint).trim().to_string();
        match session.wait().await? {
            kemudi_client::Outcome::Success => Ok(()),
            kemudi_client::Outcome::Code(code, _) => {
                Err(Failure::new(format!("tar in the container ended with {code}: {complaint}")))
            }
            kemudi_client::Outcome::Failed(why) => Err(Failure::new(why).hint("the container needs the program tar")),
        }
    }
}

fn base(path: &Path) -> Outcome<String> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    name.ok_or_else(|| Failure::new(format!("{:?} names no file", path.display().to_string())))
}

/// Writes a file, or a folder with all that is in it, under another name into an archive.
fn pack(to: Option<Outgoing>, from: &Path, name: &str) -> io::Result<()> {
    let Some(to) = to else { return Ok(()) };
    let mut archive = tar::Builder::new(SyncIoBridge::new(to));
    // As they are: what a link leads to may be another thing there.
    archive.follow_symlinks(false);
    match std::fs::symlink_metadata(from)?.is_dir() {
        true => archive.append_dir_all(name, from)?,
        false => archive.append_path_with_name(from, name)?,
    }
    let mut to = archive.into_inner()?;
    to.shutdown()
}

/// Writes what is under `prefix` in an archive to a place here.
fn unpack(from: Option<Incoming>, prefix: &Path, to: &Path) -> io::Result<()> {
    let Some(from) = from else { return Ok(()) };
    let mut archive = tar::Archive::new(SyncIoBridge::new(from));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Ok(inside) = path.strip_prefix(prefix) else { continue };
        if !inside.components().all(|part| matches!(part, Component::Normal(_))) {
            eprintln!("warning: {} leads elsewhere and is left out", path.display());
            continue;
        }
        let target = if inside.as_os_str().is_empty() { to.to_path_buf() } else { to.join(inside) };
        match entry.header().entry_type() {
            tar::EntryType::Directory => std::fs::create_dir_all(&target)?,
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                if let Some(folder) = target.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                io::copy(&mut entry, &mut File::create(&target)?)?;
            }
            _ => eprintln!("warning: {} is no plain file and is left out", path.display()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let pod = |namespace: Option<&str>, pod: &str, path: &str| Place::Pod {
            namespace: namespace.map(str::to_string),
            pod: pod.into(),
            path: path.into(),
        };
        for (word, want) in [
            ("web:/etc/x", pod(None, "web", "/etc/x")),
            ("team/web:x:y", pod(Some("team"), "web", "x:y")),
            ("/tmp/a:b", Place::Here("/tmp/a:b".into())),
            ("./a:b", Place::Here("./a:b".into())),
            ("file", Place::Here("file".into())),
        ] {
            assert_eq!(Place::parse(word).unwrap(), want, "{word}");
        }
        assert!(Place::parse("web:").is_err());
    }
}
