//! `kemudi ca` and `kemudi keys`: the life of a cluster's authorities and of the keys that sign its tokens. Both change files in
//! the cluster's folder, which a running server follows; then they wait until it has taken them. Prints no private key.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand, ValueEnum};
use futures_util::StreamExt;
use http::header::ACCEPT;
use http::{HeaderValue, Method};
use kemudi_client::client::request;
use kemudi_client::kinds::ConfigMap;
use kemudi_client::{Api, ApiResource, Client, Config, Dynamic, Error, Event, FieldSelector, ListOptions, Resource};
use serde_json::Value;
use server::authn::jwt::{self, Algorithm};
use server::pki::life::{self, KeyInfo};

use super::table::Table;
use super::up::data_folder;
use super::{Failure, Global, Outcome, print};

/// How long a running server may take until it shows what it has taken.
const TAKEN_TIME_MAX: Duration = Duration::from_secs(10);
/// Between two looks at the key set, which cannot be watched.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long clients may go on with the authorities they know: client-go reads them again every five minutes.
const AUTHORITY_SECONDS: i64 = 10 * 60;
/// How long pods may go on with the token they have: it is good for an hour and seven seconds.
const TOKEN_SECONDS: i64 = 3607 + 60;
/// Selects the ConfigMap that shows which authorities a server trusts.
const ROOT_CA: &str = "metadata.name=kube-root-ca.crt";

#[derive(Args, Debug)]
#[command(after_help = "\
A new authority takes over at once, in a server that runs too, and no client has to know it
before: the old one vouches for it. What the old one signed counts until it is retired.

Examples:
  kemudi ca list
  kemudi ca rotate                  a new authority signs
  kemudi ca retire                  the old ones are trusted no more, ten minutes later or more")]
pub struct Ca {
    #[command(subcommand)]
    step: Step,
}

#[derive(Args, Debug)]
#[command(after_help = "\
A new key signs tokens at once, in a server that runs too. Tokens of the old one count until it
is retired.

Examples:
  kemudi keys list
  kemudi keys rotate                a new key signs
  kemudi keys rotate --algorithm ES256
  kemudi keys retire                tokens of the old keys count no more, an hour later or more")]
pub struct Keys {
    #[command(subcommand)]
    step: KeysStep,
}

#[derive(Subcommand, Debug)]
enum Step {
    /// Show them, the one that signs first
    List(Folder),
    /// Let a new one sign; what the ones before it signed goes on counting
    Rotate(Folder),
    /// Let only the one that signs count
    Retire(Retire),
}

#[derive(Subcommand, Debug)]
enum KeysStep {
    /// Show them, the one that signs first
    List(Folder),
    /// Let a new one sign; what the ones before it signed goes on counting
    Rotate(Rotate),
    /// Let only the one that signs count
    Retire(Retire),
}

#[derive(Args, Debug)]
struct Folder {
    /// The folder of the cluster, as of kemudi up [default: the user's state folder]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct Rotate {
    #[command(flatten)]
    folder: Folder,
    /// What the new key is for [default: as the one before it]
    #[arg(long, value_name = "NAME")]
    algorithm: Option<KeyAlgorithm>,
}

#[derive(Args, Debug)]
struct Retire {
    #[command(flatten)]
    folder: Folder,
    /// Do not wait until all who are well-behaved have what is new
    #[arg(long)]
    now: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "UPPER")]
enum KeyAlgorithm {
    Rs256,
    Es256,
    Es384,
    Es512,
}

impl Ca {
    pub async fn run(self, global: &Global) -> Outcome {
        match self.step {
            Step::List(folder) => {
                let mut table = Table::default();
                table.row(["NAME", "SIGNS", "MADE", "EXPIRES", "SHA-256 FINGERPRINT"]);
                for it in life::authorities(&folder.pki()?).map_err(Failure::new)? {
                    let signs = if it.signs { "yes" } else { "no" };
                    table.row([it.name, signs.into(), time(it.made_at), day(it.expires_at), it.fingerprint]);
                }
                print(table.take())
            }
            Step::Rotate(folder) => {
                let made = life::rotate_authority(&folder.pki()?).map_err(Failure::new)?;
                print(format!(
                    "{} signs from now on, until {}\n{}\n",
                    made.name,
                    day(made.expires_at),
                    made.fingerprint
                ))?;
                taken(folder.server_takes_authorities(global).await);
                eprintln!("what the authorities before it signed counts until: kemudi ca retire");
                Ok(())
            }
            Step::Retire(Retire { folder, now }) => {
                let pki = folder.pki()?;
                let all = life::authorities(&pki).map_err(Failure::new)?;
                if all.len() > 1 && !now {
                    settled(all.first().map(|newest| newest.made_at), AUTHORITY_SECONDS, "ca")?;
                }
                let gone = life::retire_authorities(&pki).map_err(Failure::new)?;
                if gone.is_empty() {
                    return print("there is one authority, which signs; nothing to retire\n");
                }
                let lines = gone.iter().map(|it| format!("{} is trusted no more ({})\n", it.name, it.fingerprint));
                print(lines.collect::<String>())?;
                taken(folder.server_takes_authorities(global).await);
                eprintln!(
                    "client certificates that it signed count no more; kubeconfigs of before are to be made anew"
                );
                Ok(())
            }
        }
    }
}

impl Keys {
    pub async fn run(self, global: &Global) -> Outcome {
        match self.step {
            KeysStep::List(folder) => {
                let pki = folder.pki()?;
                let made_at = life::key_made_at(&pki).map(time);
                let mut table = Table::default();
                table.row(["ID", "ALGORITHM", "SIGNS", "SINCE"]);
                for it in folder.keys()? {
                    let (signs, since) = if it.signs { ("yes", made_at.as_deref()) } else { ("no", None) };
                    table.row([it.id.as_str(), it.algorithm.name(), signs, since.unwrap_or_default()]);
                }
                print(table.take())
            }
            KeysStep::Rotate(Rotate { folder, algorithm }) => {
                let algorithm = algorithm.map(KeyAlgorithm::of_tokens);
                folder.keys()?;
                let made = life::rotate_key(&folder.pki()?, algorithm).map_err(Failure::new)?;
                print(format!("{} ({}) signs tokens from now on\n", made.id, made.algorithm.name()))?;
                taken(folder.server_takes_keys(global).await);
                eprintln!("tokens of the keys before it count until: kemudi keys retire");
                Ok(())
            }
            KeysStep::Retire(Retire { folder, now }) => {
                let pki = folder.pki()?;
                if folder.keys()?.len() > 1 && !now {
                    settled(life::key_made_at(&pki), TOKEN_SECONDS, "keys")?;
                    let held = folder.old_secrets(global).await?;
                    if !held.is_empty() {
                        let why =
                            format!("these Secrets hold tokens of a key that would be retired: {}", held.join(", "));
                        let hint = "delete their .data.token, so that they get new ones, and give these to whoever uses \
                                    them; or let them go: kemudi keys retire --now";
                        return Err(Failure::new(why).hint(hint));
                    }
                }
                let gone = life::retire_keys(&pki).map_err(Failure::new)?;
                if gone.is_empty() {
                    return print("there is one key, which signs; nothing to retire\n");
                }
                let lines = gone.iter().map(|it| format!("{}: its tokens count no more\n", it.id));
                print(lines.collect::<String>())?;
                taken(folder.server_takes_keys(global).await);
                Ok(())
            }
        }
    }
}

impl KeyAlgorithm {
    fn of_tokens(self) -> Algorithm {
        match self {
            KeyAlgorithm::Rs256 => Algorithm::Rs256,
            KeyAlgorithm::Es256 => Algorithm::Es256,
            KeyAlgorithm::Es384 => Algorithm::Es384,
            KeyAlgorithm::Es512 => Algorithm::Es512,
        }
    }
}

/// What became of a change.
enum Taken {
    /// The server shows it.
    Yes,
    /// None runs; it will find it when it starts.
    NoServer,
    /// Why nothing can be said about it.
    Unknown(String),
}

impl Folder {
    fn data(&self) -> Outcome<PathBuf> {
        data_folder(self.data.as_deref())
    }

    fn pki(&self) -> Outcome<PathBuf> {
        let data = self.data()?;
        let pki = data.join("pki");
        match pki.is_dir() {
            true => Ok(pki),
            false => Err(Failure::new(format!("there is no cluster in {}", data.display()))
                .hint("name the folder that kemudi up was given with --data DIR")),
        }
    }

    fn keys(&self) -> Outcome<Vec<KeyInfo>> {
        life::keys(&self.pki()?).map_err(|why| {
            let hint = "a key of --service-account-signing-key-file is replaced by writing another one into that file; \
                        the old one's public half goes to --service-account-key-file";
            Failure::new(why).hint(hint)
        })
    }

    /// A client of the server that runs on this folder, if one does.
    fn client(&self, global: &Global) -> Outcome<Client> {
        let kubeconfig =
            global.kubeconfig.clone().map_or_else(|| self.data().map(|data| data.join("admin.kubeconfig")), Ok);
        let config = Config::from_kubeconfig(Some(&kubeconfig?), None);
        Ok(Client::new(config.map_err(Error::from)?)?)
    }

    async fn server_takes_authorities(&self, global: &Global) -> Taken {
        let Ok(client) = self.client(global) else { return Taken::NoServer };
        let trusted = match self.pki().map(|pki| std::fs::read_to_string(pki.join("ca.crt"))) {
            Ok(Ok(trusted)) => trusted,
            _ => return Taken::Unknown("ca.crt cannot be read".into()),
        };
        shown(async move {
            let one =
                ListOptions { fields: FieldSelector::parse(ROOT_CA).unwrap_or_default(), ..ListOptions::default() };
            let maps = Api::<ConfigMap>::namespaced(client, "kube-system").watcher(&one);
            let mut events = std::pin::pin!(maps.into_stream());
            while let Some(event) = events.next().await {
                if let Event::InitApplied(map) | Event::Applied(map) = event?
                    && map.data.get("ca.crt") == Some(&trusted)
                {
                    break;
                }
            }
            Ok(())
        })
        .await
    }

    async fn server_takes_keys(&self, global: &Global) -> Taken {
        let Some((client, keys)) = self.client(global).ok().zip(self.keys().ok()) else { return Taken::NoServer };
        let mut wanted: Vec<String> = keys.into_iter().map(|key| key.id).collect();
        wanted.sort();
        shown(async move {
            loop {
                let mut ask = request(Method::GET, "/openid/v1/jwks", None)?;
                ask.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/jwk-set+json"));
                let set: Value = client.json(ask).await?;
                let keys = set["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
                let mut served: Vec<&str> = keys.iter().filter_map(|key| key["kid"].as_str()).collect();
                served.sort_unstable();
                if served == wanted {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await
    }

    /// The Secrets whose tokens another key than the one that signs has signed, `namespace/name`.
    async fn old_secrets(&self, global: &Global) -> Outcome<Vec<String>> {
        let signing = self.keys()?.into_iter().find(|key| key.signs).map(|key| key.id).unwrap_or_default();
        let secrets = ApiResource::new("", "v1", "Secret", "secrets", true);
        let fields = FieldSelector::parse("type=kubernetes.io/service-account-token").unwrap_or_default();
        let secrets = Api::all_of(self.client(global)?, &secrets);
        let listed = secrets.list_with(&ListOptions { fields, ..ListOptions::default() }).await;
        let held = listed.map_err(|error| {
            Failure::new(format!("Secrets may hold tokens of the old keys, and the server cannot be asked: {error}"))
                .hint("start it with kemudi up; or let such tokens go: kemudi keys retire --now")
        })?;
        let is_old = |secret: &&Dynamic| {
            let token = secret["data"]["token"].as_str().and_then(|token| STANDARD.decode(token).ok());
            let token = token.and_then(|token| String::from_utf8(token).ok()).unwrap_or_default();
            jwt::Compact::parse(&token).is_some_and(|token| token.key_id != signing)
        };
        let name = |secret: &Dynamic| format!("{}/{}", secret.namespace(), secret.name());
        Ok(held.items.iter().filter(is_old).map(name).collect())
    }
}

/// Waits until a server shows a change, if there is one.
async fn shown(look: impl Future<Output = Result<(), Error>>) -> Taken {
    match tokio::time::timeout(TAKEN_TIME_MAX, look).await {
        Ok(Ok(())) => Taken::Yes,
        Ok(Err(Error::Connect { .. })) => Taken::NoServer,
        Ok(Err(error)) => Taken::Unknown(error.to_string()),
        Err(_) => Taken::Unknown(format!("after {} s it did not", TAKEN_TIME_MAX.as_secs())),
    }
}

/// Says what became of a change.
fn taken(taken: Taken) {
    match taken {
        Taken::Yes => eprintln!("the server that runs has taken it"),
        Taken::NoServer => eprintln!("no server runs here; the next start takes it"),
        Taken::Unknown(why) => eprintln!("warning: whether a server that runs has taken it is not known: {why}"),
    }
}

/// Refuses while what was replaced may be in use by those who have not heard of it yet.
fn settled(since: Option<i64>, wait: i64, noun: &str) -> Outcome {
    let left = since.map_or(0, |since| since + wait - jiff::Timestamp::now().as_second());
    match left {
        ..=0 => Ok(()),
        _ => Err(Failure::new(format!(
            "what is new is in use since {}, and not everybody need have it yet",
            time(since.unwrap_or_default())
        ))
        .hint(format!(
            "wait {} minutes, or break what uses the old: kemudi {noun} retire --now",
            left.div_euclid(60) + 1
        ))),
    }
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default()
}

fn day(seconds: i64) -> String {
    time(seconds).chars().take_while(|c| *c != 'T').collect()
}
