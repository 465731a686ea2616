//! The bearer token of requests. A token file is read again when it changed, at once when the server refuses the token, and
//! never for a request alone.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

use crate::config::{ConfigCode, ConfigError, Credentials, read_token};
use crate::exec::Credential;
use crate::token::Claims;

/// How often the file of a token that should not be in use any more is read in hope of another.
const STALE_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Gives the `Authorization` header of each request.
pub enum TokenSource {
    None,
    Fixed(HeaderValue),
    File(TokenFile),
    Plugin(Box<Credential>),
}

/// A file that somebody else puts fresh tokens into.
pub struct TokenFile {
    path: PathBuf,
    held: Mutex<Option<Held>>,
    /// How often the file was read.
    reads: AtomicU64,
}

/// A token in use.
struct Held {
    header: HeaderValue,
    /// What [`Files::generation`](crate::files::Files::generation) was before it was read.
    generation: u64,
    read: Instant,
    /// From then on another should be in use: its end, or before it the time that it names. In seconds since 1970.
    stale_from: Option<i64>,
}

impl TokenSource {
    pub fn new(credentials: &Credentials) -> Result<TokenSource, ConfigError> {
        Ok(match credentials {
            Credentials::None => TokenSource::None,
            Credentials::Token(token) => TokenSource::Fixed(header(token)?),
            Credentials::TokenFile(path) => TokenSource::File(TokenFile::new(path)),
            Credentials::Exec(plugin) => TokenSource::Plugin(Box::new(Credential::new((**plugin).clone()))),
        })
    }

    /// The header for the next request; `generation` is that of the files.
    pub async fn header(&self, generation: u64) -> Result<Option<HeaderValue>, ConfigError> {
        match self {
            TokenSource::None => Ok(None),
            TokenSource::Fixed(header) => Ok(Some(header.clone())),
            TokenSource::File(file) => file.header(generation).map(Some),
            TokenSource::Plugin(plugin) => plugin.header().await,
        }
    }

    /// The server refused `used`: another token that is worth a try, if there is one by now.
    pub async fn header_after_refusal(&self, used: Option<&HeaderValue>, generation: u64) -> Option<HeaderValue> {
        match self {
            TokenSource::None | TokenSource::Fixed(_) => None,
            TokenSource::File(file) => file.other_than(used, generation),
            TokenSource::Plugin(plugin) => plugin.other_than(used).await,
        }
    }

    /// The plugin that gives credentials, where one does.
    pub fn plugin(&self) -> Option<&Credential> {
        match self {
            TokenSource::Plugin(plugin) => Some(plugin),
            _ => None,
        }
    }
}

impl TokenFile {
    fn new(path: &Path) -> TokenFile {
        TokenFile { path: path.to_path_buf(), held: Mutex::new(None), reads: AtomicU64::new(0) }
    }

    /// While the file cannot be read, the last token it had stays in use: kubelets swap files, and a token outlives its file.
    fn header(&self, generation: u64) -> Result<HeaderValue, ConfigError> {
        let mut held = self.lock();
        if let Some(held) = held.as_ref()
            && !held.is_outdated(generation)
        {
            return Ok(held.header.clone());
        }
        match self.read(generation) {
            Ok(fresh) => Ok(held.insert(fresh).header.clone()),
            Err(error) => {
                let Some(held) = held.as_mut() else { return Err(error) };
                tracing::warn!(%error, "the token file cannot be read; the last token stays in use");
                (held.generation, held.read) = (generation, Instant::now());
                Ok(held.header.clone())
            }
        }
    }

    fn other_than(&self, used: Option<&HeaderValue>, generation: u64) -> Option<HeaderValue> {
        let mut held = self.lock();
        // Of many that were refused together the first has read it.
        if let Some(held) = held.as_ref()
            && Some(&held.header) != used
        {
            return Some(held.header.clone());
        }
        let header = held.insert(self.read(generation).ok()?).header.clone();
        Some(header).filter(|header| Some(header) != used)
    }

    fn read(&self, generation: u64) -> Result<Held, ConfigError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let token = read_token(&self.path)?;
        let claims = Claims::decode(&token);
        let stale_from = claims.and_then(|claims| claims.kubernetes.warnafter.or(claims.expires));
        Ok(Held { header: header(&token)?, generation, read: Instant::now(), stale_from })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Held {
    fn is_outdated(&self, generation: u64) -> bool {
        self.generation != generation || (self.is_stale() && self.read.elapsed() >= STALE_LOOK_EVERY)
    }

    fn is_stale(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        self.stale_from.is_some_and(|from| from <= now)
    }
}

/// The header that shows a token.
pub fn header(token: &str) -> Result<HeaderValue, ConfigError> {
    let mut header = HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| {
        ConfigError::new(ConfigCode::TokenInvalid, "the token holds characters that no token has")
            .fix("give the bare token, without line breaks inside")
    })?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::files::FileChanges;

    #[test]
    fn a_file_is_read_once_a_change_however_many_requests_there_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "one").unwrap();
        let files = FileChanges::of(vec![path.clone()]);
        let source = TokenFile::new(&path);
        let check = |want: &str, reads: u64| {
            for _ in 0..10_000 {
                assert_eq!(source.header(files.generation()).unwrap(), want);
            }
            assert_eq!(source.reads.load(Ordering::Relaxed), reads);
        };
        check("Bearer one", 1);
        fs::write(dir.path().join("next"), "two\n").unwrap();
        fs::rename(dir.path().join("next"), &path).unwrap();
        check("Bearer two", 2);
        fs::remove_file(&path).unwrap();
        check("Bearer two", 3);
        fs::write(&path, "six").unwrap();
        check("Bearer six", 4);
    }
}
