//! Users and access lists as they stand in their file, and passwords checked against argon2id hashes.
//!
//! No password is kept or logged. A password that was right is remembered as a keyed digest in memory, because a
//! battery sensor that waits a tenth of a second for its CONNACK spends its night on it.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::topic_filter::{InvalidFilter, TopicFilter};

/// Right passwords remembered: every user of a house many times over.
const REMEMBERED: usize = 1_000;

/// What is wrong with the file of users.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not TOML, or a key is unknown or of the wrong type.
    #[error("{path}: {message}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// A name stands twice.
    #[error("user {0:?} stands twice")]
    Twice(String),
    /// A hash is none of argon2id.
    #[error("user {0:?}: password_hash is no argon2id hash; make one with edge-agent hash-password")]
    Hash(String),
    /// An access list names a user that is not there.
    #[error("access list for user {0:?}, who is not in [[users]]")]
    Unknown(String),
    /// A filter of an access list is not valid.
    #[error("access list, filter {filter:?}: {source}")]
    Filter {
        /// The filter.
        filter: String,
        /// The rule it breaks.
        source: InvalidFilter,
    },
}

/// Users and access lists, checked.
#[derive(Debug, Default)]
pub struct Users {
    /// Users without a hash log in by a certificate only.
    hashes: HashMap<String, Option<String>>,
    lists: Vec<AccessList>,
    right: Mutex<HashSet<[u8; 32]>>,
    key: [u8; 32],
}

/// What some clients may do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessList {
    /// A user's name; without it the list is for everybody, anonymous clients included.
    pub user: Option<String>,
    /// Client ids it is for; `*` stands for any characters.
    #[serde(default = "any")]
    pub client_id: String,
    /// Filters of topics they may publish on; `%u` and `%c` stand for user and client id. Without it: everything but
    /// command topics.
    pub publish: Option<Vec<String>>,
    /// Filters they may subscribe to, or to any part of. Without it: everything.
    pub subscribe: Option<Vec<String>>,
    /// Filters they may not subscribe to, and whose topics they do not get by a wider one either.
    #[serde(default)]
    pub refuse_subscribe: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    users: Vec<User>,
    #[serde(default)]
    access: Vec<AccessList>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    name: String,
    password_hash: Option<String>,
}

fn any() -> String {
    "*".to_owned()
}

impl Users {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, UsersError> {
        let text = std::fs::read_to_string(path).map_err(|source| UsersError::Read {
            path: path.to_owned(),
            source,
        })?;
        let file: File = toml::from_str(&text).map_err(|error| UsersError::Toml {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        Self::check(file)
    }

    fn check(file: File) -> Result<Self, UsersError> {
        let mut hashes = HashMap::new();
        for user in file.users {
            let argon2id = |hash: &String| {
                PasswordHash::new(hash).is_ok_and(|hash| hash.algorithm.as_str() == "argon2id")
            };
            let sound = user.password_hash.as_ref().is_none_or(argon2id);
            if !sound {
                return Err(UsersError::Hash(user.name));
            }
            if hashes.insert(user.name.clone(), user.password_hash).is_some() {
                return Err(UsersError::Twice(user.name));
            }
        }
        for list in &file.access {
            if let Some(user) = list.user.as_ref().filter(|user| !hashes.contains_key(*user)) {
                return Err(UsersError::Unknown(user.clone()));
            }
            let optional = list.publish.iter().chain(&list.subscribe).flatten();
            for filter in optional.chain(&list.refuse_subscribe) {
                // Any name will do to see whether the filter is sound.
                fill(filter, Some("u"), "c")
                    .unwrap_or_else(|| TopicFilter::parse("u"))
                    .map_err(|source| UsersError::Filter {
                        filter: filter.clone(),
                        source,
                    })?;
            }
        }
        Ok(Self {
            hashes,
            lists: file.access,
            right: Mutex::default(),
            key: rand::random(),
        })
    }

    /// True when there are users at all.
    pub fn any(&self) -> bool {
        !self.hashes.is_empty()
    }

    /// Whether the password is the user's. Takes a tenth of a second of computing and 19 MiB the first time: call it where
    /// blocking is allowed, a few at a time.
    pub fn verify(&self, user: &str, password: &str) -> bool {
        let digest = self.digest(user, password);
        if self.is_remembered(&digest) {
            return true;
        }
        // An unknown user costs the same time as a known one, so that nobody learns names by the clock.
        let nobody = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$WrTpFYXQY6pZu0K+uskWZwl8fOk0W4Dj/pXGXJ9qPXc";
        let own = self.hashes.get(user).and_then(Option::as_deref);
        let hash = own.unwrap_or(nobody);
        let right = PasswordHash::new(hash).is_ok_and(|hash| {
            Argon2::default()
                .verify_password(password.as_bytes(), &hash)
                .is_ok()
        });
        let right = right && own.is_some();
        if right {
            let mut remembered = self.right.lock().unwrap_or_else(PoisonError::into_inner);
            if remembered.len() >= REMEMBERED {
                remembered.clear();
            }
            remembered.insert(digest);
        }
        right
    }

    /// True when `verify` would answer yes at once.
    pub fn is_known(&self, user: &str, password: &str) -> bool {
        self.is_remembered(&self.digest(user, password))
    }

    fn is_remembered(&self, digest: &[u8; 32]) -> bool {
        self.right
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(digest)
    }

    fn digest(&self, user: &str, password: &str) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(self.key);
        hasher.update((user.len() as u64).to_be_bytes());
        hasher.update(user);
        hasher.update(password);
        hasher.finalize().into()
    }

    /// The first list that is for this client.
    pub fn list(&self, user: Option<&str>, client_id: &str) -> Option<&AccessList> {
        self.lists.iter().find(|list| {
            (list.user.is_none() || list.user.as_deref() == user) && glob(&list.client_id, client_id)
        })
    }
}

/// A filter with `%u` and `%c` filled in; `None` when a name in it would be a wildcard or several levels, or there
/// is no user: such a filter matches nothing.
pub fn fill(filter: &str, user: Option<&str>, client_id: &str) -> Option<Result<TopicFilter, InvalidFilter>> {
    let plain = |name: &str| !name.is_empty() && !name.contains(['+', '#', '/']);
    let mut filled = filter.to_owned();
    if filled.contains("%u") {
        filled = filled.replace("%u", user.filter(|user| plain(user))?);
    }
    if filter.contains("%c") {
        if !plain(client_id) {
            return None;
        }
        filled = filled.replace("%c", client_id);
    }
    Some(TopicFilter::parse(filled))
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => match text.strip_prefix(head) {
            None => false,
            Some(tail) => (0..=tail.len()).any(|at| tail.is_char_boundary(at) && glob(rest, &tail[at..])),
        },
    }
}

/// The argon2id hash of a password, with a random salt, for the file of users.
pub fn hash_password(password: &str) -> Result<String, argon2::password_hash::Error> {
    Ok(Argon2::default().hash_password(password.as_bytes())?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(text: &str) -> Result<Users, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Users::load(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn passwords_are_checked_and_right_ones_remembered() {
        let hash = hash_password("open sesame").unwrap();
        let users = users(&format!(
            "[[users]]\nname = \"ali\"\npassword_hash = \"{hash}\"\n"
        ))
        .unwrap();
        assert!(!users.is_known("ali", "open sesame"));
        assert!(users.verify("ali", "open sesame"));
        assert!(users.is_known("ali", "open sesame"));
        assert!(!users.verify("ali", "open sesame "));
        assert!(!users.verify("ali", ""));
        assert!(!users.verify("baba", "open sesame"));
        assert!(!format!("{users:?}").contains("open sesame"));
    }

    #[test]
    fn mistakes_in_the_file_are_named() {
        let hash = hash_password("x").unwrap();
        let user = format!("[[users]]\nname = \"ali\"\npassword_hash = \"{hash}\"\n");
        let check = |text: &str, want: &str| {
            let error = users(text).unwrap_err();
            assert!(error.contains(want), "{error} should name {want}");
        };
        check(
            "[[users]]\nname = \"ali\"\npassword_hash = \"secret\"\n",
            "hash-password",
        );
        check(&format!("{user}{user}"), "twice");
        check("[[access]]\nuser = \"nobody\"\n", "nobody");
        check("[[access]]\npublish = [\"a/#/b\"]\n", "a/#/b");
        check("[[access]]\npublsh = []\n", "publsh");
        assert!(users("").is_ok());
    }

    #[test]
    fn names_in_filters_cannot_widen_them() {
        let check = |filter: &str, user: Option<&str>, client: &str, want: Option<&str>| {
            let filled = fill(filter, user, client).map(|f| f.unwrap().as_str().to_owned());
            assert_eq!(filled.as_deref(), want, "{filter} {user:?} {client}");
        };
        check("%c/#", None, "shelly-1", Some("shelly-1/#"));
        check("home/%u/%c", Some("ali"), "c", Some("home/ali/c"));
        check("%c/#", None, "+", None);
        check("%c/#", None, "a/b", None);
        check("%c/#", None, "#", None);
        check("%u/#", None, "c", None);
        check("%u/#", Some("+"), "c", None);
        check("plain/#", None, "+", Some("plain/#"));
    }

    #[test]
    fn client_ids_are_matched_by_pattern() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("*", "anything", true),
            ("shelly*", "shellyhtg3-1", true),
            ("shelly*", "tasmota", false),
            ("*-kitchen", "plug-kitchen", true),
            ("a*b*c", "a-x-b-y-c", true),
            ("a*b*c", "a-x-c", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
    }
}
