//! Static tokens from a file: `token,user,uid,"group1,group2"` lines, as `--token-auth-file` of kube-apiserver reads them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::User;

/// The largest token file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Who each static token stands for. Tokens are kept as hashes, so that looking one up takes the same time for all.
#[derive(Clone, Default)]
pub struct TokenFile(HashMap<[u8; 32], Arc<User>>);

impl TokenFile {
    /// Reads a token file; the error says which line is wrong.
    pub fn open(path: &Path) -> Result<TokenFile, String> {
        let size = std::fs::metadata(path).map_err(|e| format!("open {}: {e}", path.display()))?.len();
        if size > FILE_BYTES_MAX {
            return Err(format!("token file {} has {size} bytes, more than {FILE_BYTES_MAX}", path.display()));
        }
        let text = std::fs::read_to_string(path).map_err(|e| format!("open {}: {e}", path.display()))?;
        TokenFile::parse(&text).map_err(|e| format!("token file '{}' {e}", path.display()))
    }

    pub fn parse(text: &str) -> Result<TokenFile, String> {
        let mut tokens = TokenFile::default();
        for (number, record) in records(text)?.into_iter().enumerate() {
            let [token, name, uid, rest @ ..] = record.as_slice() else {
                return Err(format!(
                    "must have at least 3 columns (token, user name, user uid), found {} in record {}",
                    record.len(),
                    number + 1
                ));
            };
            if token.is_empty() {
                tracing::warn!("empty token has been found in token file, line {}", number + 1);
                continue;
            }
            let groups = rest.first().map_or("", String::as_str).split(',');
            let groups = groups.filter(|group| !group.is_empty()).map(str::to_string).collect();
            tokens.insert(token, User { name: name.clone(), uid: uid.clone(), groups, ..User::default() });
        }
        Ok(tokens)
    }

    /// Adds a token; the last one wins.
    pub fn insert(&mut self, token: &str, user: User) {
        self.0.insert(hash(token), Arc::new(user));
    }

    pub fn find(&self, token: &str) -> Option<Arc<User>> {
        self.0.get(&hash(token)).cloned()
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The records of a CSV text: quoted fields may hold commas, line ends and doubled quotes; empty lines are none.
fn records(text: &str) -> Result<Vec<Vec<String>>, String> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match (quoted, c) {
            (true, '"') if chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            (true, '"') => quoted = false,
            (true, c) => field.push(c),
            (false, '"') if field.is_empty() => quoted = true,
            (false, '"') => return Err(format!("has a bare \" in a non-quoted field, record {}", records.len() + 1)),
            (false, ',') => record.push(std::mem::take(&mut field)),
            (false, '\r') if chars.peek() == Some(&'\n') => {}
            (false, '\n') if record.is_empty() && field.is_empty() => {}
            (false, '\n') => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            (false, c) => field.push(c),
        }
    }
    if quoted {
        return Err(format!("has an extraneous or missing \" in a quoted field, record {}", records.len() + 1));
    }
    if !record.is_empty() || !field.is_empty() {
        record.push(field);
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, token: &str, want: &str) {
        let got = match TokenFile::parse(text) {
            Err(error) => error,
            Ok(file) => match file.find(token) {
                Some(user) => serde_json::to_string(&*user).unwrap(),
                None => "unknown".to_string(),
            },
        };
        assert_eq!(got, want);
    }

    #[test]
    fn token_files() {
        let file = "abc,admin,admin,system:masters\r\n\nx y,\"a \"\"b\"\"\",7,\"one,two\"\nlast,u,1";
        check(file, "abc", r#"{"username":"admin","uid":"admin","groups":["system:masters"]}"#);
        check(file, "x y", r#"{"username":"a \"b\"","uid":"7","groups":["one","two"]}"#);
        check(file, "last", r#"{"username":"u","uid":"1"}"#);
        check(file, "ABC", "unknown");
        check("t,u", "t", "must have at least 3 columns (token, user name, user uid), found 2 in record 1");
        check("t,\"u", "t", "has an extraneous or missing \" in a quoted field, record 1");
    }
}
