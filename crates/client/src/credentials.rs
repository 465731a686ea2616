//! The bearer token of requests. A token file is read again when it changes, at once when the server refuses the token,
//! and never once a request: a look at the file's stamp at most once a second is all that steady use costs.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

use crate::config::{ConfigCode, ConfigError, Credentials, read_token};
use crate::token::Claims;

/// How long a token is used without a look at its file.
const TOKEN_FILE_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Gives the `Authorization` header of each request.
pub enum TokenSource {
    None,
    Fixed(HeaderValue),
    File { path: PathBuf, state: Mutex<Option<Held>> },
}

/// A token in use, and what its file looked like when it was read.
pub struct Held {
    header: HeaderValue,
    stamp: Stamp,
    looked: Instant,
    /// Seconds since 1970.
    expires: Option<i64>,
}

/// Tells one content of a file from the next: projected volumes swap a symbolic link, so the inode changes with it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: i64,
    modified_ns: i64,
    len: u64,
}

impl TokenSource {
    pub fn new(credentials: &Credentials) -> Result<TokenSource, ConfigError> {
        Ok(match credentials {
            Credentials::None => TokenSource::None,
            Credentials::Token(token) => TokenSource::Fixed(header(token)?),
            Credentials::TokenFile(path) => TokenSource::File { path: path.clone(), state: Mutex::new(None) },
        })
    }

    /// The header for the next request. While a file cannot be read, the last token it had stays in use: kubelets swap
    /// files, and a token outlives its file.
    pub fn header(&self) -> Result<Option<HeaderValue>, ConfigError> {
        let (path, state) = match self {
            TokenSource::None => return Ok(None),
            TokenSource::Fixed(header) => return Ok(Some(header.clone())),
            TokenSource::File { path, state } => (path, state),
        };
        let mut state = state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(held) = state.as_mut() {
            let fresh = held.looked.elapsed() < TOKEN_FILE_LOOK_EVERY && !held.is_expired();
            if fresh || Stamp::of(path).is_none_or(|stamp| stamp == held.stamp) {
                if !fresh {
                    held.looked = Instant::now();
                }
                return Ok(Some(held.header.clone()));
            }
        }
        match Held::read(path) {
            Ok(held) => Ok(Some(state.insert(held).header.clone())),
            Err(error) => match state.as_mut() {
                Some(held) => {
                    tracing::warn!(%error, "the token file cannot be read; the last token stays in use");
                    held.looked = Instant::now();
                    Ok(Some(held.header.clone()))
                }
                None => Err(error),
            },
        }
    }

    /// The server refused `used`: another token that is worth a try, if there is one by now.
    pub fn header_after_refusal(&self, used: Option<&HeaderValue>) -> Option<HeaderValue> {
        let TokenSource::File { path, state } = self else { return None };
        let mut state = state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let header = state.insert(Held::read(path).ok()?).header.clone();
        Some(header).filter(|header| Some(header) != used)
    }
}

impl Held {
    fn read(path: &Path) -> Result<Held, ConfigError> {
        // The stamp is taken first: a swap in between then shows at the next look.
        let stamp = Stamp::of(path).unwrap_or(Stamp { inode: 0, modified: 0, modified_ns: 0, len: 0 });
        let token = read_token(path)?;
        let expires = Claims::decode(&token).and_then(|claims| claims.expires);
        Ok(Held { header: header(&token)?, stamp, looked: Instant::now(), expires })
    }

    fn is_expired(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Stamp { inode: meta.ino(), modified: meta.mtime(), modified_ns: meta.mtime_nsec(), len: meta.len() })
    }
}

fn header(token: &str) -> Result<HeaderValue, ConfigError> {
    let mut header = HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| {
        ConfigError::new(ConfigCode::TokenInvalid, "the token holds characters that no token has")
            .fix("give the bare token, without line breaks inside")
    })?;
    header.set_sensitive(true);
    Ok(header)
}
