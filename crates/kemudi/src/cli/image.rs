//! `kemudi image`: the images that pods of this machine can have: from registries and files into the store, and out again.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use images::{Auth, Image as Stored, Progress, Reference, Store, reference};
use indicatif::HumanBytes;

use super::table::Table;
use super::up::{data_folder, state_folder};
use super::{Failure, Global, Outcome, print};

/// The folder of the store, in the folder of the state.
const FOLDER: &str = "images";
/// How long a pull may take before a word about it is due.
const QUIET_TIME: Duration = Duration::from_secs(1);
/// Who asks a registry: names of variables, so that a password is in no list of processes.
const USER_VARIABLE: &str = "KEMUDI_REGISTRY_USER";
const PASSWORD_VARIABLE: &str = "KEMUDI_REGISTRY_PASSWORD";

#[derive(Args, Debug)]
#[command(after_help = "\
Pods name these images in their specs; what is not there is pulled when a pod needs it. The image \"host\" is
this machine itself, and always there.

Examples:
  kemudi image pull alpine
  docker save web | kemudi image load -        what docker, podman or buildkit wrote, as an archive or a layout
  kemudi image load ./layout --name web:1
  kemudi run --image alpine -- sh
  kemudi image rm alpine")]
pub struct Image {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Show the images that are there
    #[command(visible_alias = "ls")]
    List(Folder),
    /// Fetch an image from its registry
    Pull(Pull),
    /// Add the images of an archive (docker save, OCI) or of a folder with a layout
    Load(Load),
    /// Remove images
    Rm(Rm),
}

#[derive(Args, Debug, Default)]
pub struct Folder {
    /// The folder of the cluster, as of kemudi up [default: the user's state folder, which kemudi run has too]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
A registry that wants to know who asks gets KEMUDI_REGISTRY_USER and KEMUDI_REGISTRY_PASSWORD of the environment.")]
struct Pull {
    /// Name of the image: alpine, registry.example.com/team/web:1, web@sha256:...
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    folder: Folder,
}

#[derive(Args, Debug)]
struct Load {
    /// Archive, folder, or - for an archive on stdin
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// Name of an image that has none of its own
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    folder: Folder,
}

#[derive(Args, Debug)]
struct Rm {
    /// Name or id of the image
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    folder: Folder,
}

impl Image {
    pub async fn run(self, _: &Global) -> Outcome {
        match self.what {
            What::List(folder) => print(listing(&folder.store()?.list().map_err(Failure::new)?)),
            What::Pull(Pull { names, folder }) => {
                let store = folder.store()?;
                for name in names {
                    let image = pull(&store, &name).await?;
                    let pulled = named(&name)?;
                    print(format!("{}\n", image.digest_in(&pulled).unwrap_or(&image.id)))?;
                }
                Ok(())
            }
            What::Load(Load { from, name, folder }) => {
                let store = folder.store()?;
                let name = name.as_deref().map(named).transpose()?;
                let images = match from.as_os_str() == "-" {
                    true => store.load_archive(std::io::stdin(), name.as_ref()),
                    false => store.load(&from, name.as_ref()),
                };
                for image in images.map_err(Failure::new)? {
                    print(match image.names.as_slice() {
                        [] => format!("Loaded image ID: {}\n", image.id),
                        names => names.iter().map(|name| format!("Loaded image: {name}\n")).collect(),
                    })?;
                }
                Ok(())
            }
            What::Rm(Rm { names, folder }) => {
                let store = folder.store()?;
                for name in names {
                    let gone = store
                        .remove(&name)
                        .map_err(|why| Failure::new(why).hint("see which there are: kemudi image list"))?;
                    print(gone.iter().map(|line| format!("{line}\n")).collect::<String>())?;
                }
                Ok(())
            }
        }
    }
}

impl Folder {
    fn store(&self) -> Outcome<Store> {
        Ok(store_in(&data_folder(self.data.as_deref())?))
    }
}

/// The store of a cluster's folder.
pub fn store_in(data: &Path) -> Store {
    Store::open(data.join(FOLDER))
}

/// The user's own store, for those who name no folder.
pub fn own_store() -> Outcome<Store> {
    Ok(store_in(&state_folder()?))
}

/// An image's whole name.
fn named(name: &str) -> Outcome<Reference> {
    reference(name).map_err(Failure::new)
}

/// Fetches an image, with a word on stderr where that takes a while.
pub async fn pull(store: &Store, name: &str) -> Outcome<Stored> {
    let wanted = named(name)?;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let auth = match (variable(USER_VARIABLE), variable(PASSWORD_VARIABLE)) {
        (Some(name), Some(password)) => Auth::User { name, password },
        _ => Auth::Nobody,
    };
    let began = std::time::Instant::now();
    let told = |progress: Progress| {
        if began.elapsed() >= QUIET_TIME {
            let _ = writeln!(
                std::io::stderr(),
                "pulling {}: {} of {} layers",
                wanted.whole(),
                progress.layers,
                progress.of
            );
        }
    };
    store.pull(&wanted, &auth, told).await.map_err(|why| {
        let hint = match &why {
            images::Error::Denied(_) => {
                Some(format!("say who asks: {USER_VARIABLE}=.. {PASSWORD_VARIABLE}=.. kemudi image pull {name}"))
            }
            images::Error::Registry(_) => {
                Some("without a way to the registry: docker save NAME | kemudi image load -".into())
            }
            _ => None,
        };
        let failure = Failure::new(why);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

fn listing(images: &[Stored]) -> String {
    const ID_CHARS: usize = 12;
    let mut table = Table::default();
    table.row(["IMAGE", "ID", "SIZE"]);
    for image in images {
        let id: String = image.id.trim_start_matches("sha256:").chars().take(ID_CHARS).collect();
        let size = HumanBytes(image.bytes).to_string();
        if image.names.is_empty() {
            table.row(["<none>", &id, &size]);
        }
        for name in &image.names {
            table.row([name, &id, &size]);
        }
    }
    table.take()
}
