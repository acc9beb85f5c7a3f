//! Settings from environment variables, read once at start. Every error names the variable; no error and no
//! debug output carries the value of a secret.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

/// Largest secret file read: a connection URL or a key is far smaller, and a wrong path must not fill memory.
const SECRET_FILE_BYTES: u64 = 64 * 1024;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The variable is absent or empty.
    #[error("{name} is not set")]
    Missing {
        /// Name of the variable.
        name: String,
    },
    /// The variable has a value that cannot be used.
    #[error("{name} is invalid: {reason}")]
    Invalid {
        /// Name of the variable.
        name: String,
        /// What is wrong with it, without the value of a secret.
        reason: String,
    },
    /// A secret was given twice.
    #[error("{name} and {name}_FILE are both set, one must go")]
    Both {
        /// Name of the variable.
        name: String,
    },
    /// The file a `_FILE` variable names cannot be read.
    #[error("{name} names {path}, which cannot be read: {source}")]
    File {
        /// Name of the variable, with `_FILE`.
        name: String,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl ConfigError {
    /// An error for a value that was read but cannot be used.
    pub fn invalid(name: &str, reason: impl fmt::Display) -> Self {
        Self::Invalid {
            name: name.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// A secret value. It never prints: `Debug` writes `[secret]` and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The environment a service was started with. A variable that is empty counts as not set.
pub struct Env(HashMap<String, OsString>);

impl Env {
    /// The environment of this process.
    pub fn process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .collect(),
        )
    }

    /// An environment made of pairs, for tests.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
                .collect(),
        )
    }

    /// The text of a variable, if it is set.
    pub fn optional(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        let text = value
            .to_str()
            .ok_or_else(|| ConfigError::invalid(name, "not UTF-8"))?
            .trim();
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    /// The text of a variable that must be set.
    pub fn required(&self, name: &str) -> Result<String, ConfigError> {
        self.optional(name)?.ok_or_else(|| ConfigError::Missing {
            name: name.to_owned(),
        })
    }

    /// A variable parsed as `T`, or `default` where it is not set.
    pub fn parsed<T>(&self, name: &str, default: T) -> Result<T, ConfigError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        match self.optional(name)? {
            None => Ok(default),
            Some(text) => text.parse().map_err(|error| ConfigError::invalid(name, error)),
        }
    }

    /// A comma-separated list; blanks around entries and empty entries are dropped. Empty when not set.
    pub fn list(&self, name: &str) -> Result<Vec<String>, ConfigError> {
        let text = self.optional(name)?.unwrap_or_default();
        Ok(text
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// A comma-separated list with at least one entry.
    pub fn required_list(&self, name: &str) -> Result<Vec<String>, ConfigError> {
        let list = self.list(name)?;
        if list.is_empty() {
            Err(ConfigError::Missing {
                name: name.to_owned(),
            })
        } else {
            Ok(list)
        }
    }

    /// A secret from `name`, or from the file `name_FILE` names. Both set is an error.
    pub fn secret(&self, name: &str) -> Result<Secret, ConfigError> {
        self.optional_secret(name)?.ok_or_else(|| ConfigError::Missing {
            name: name.to_owned(),
        })
    }

    /// As [`Env::secret`], where it may be absent. A final line break in the file is not part of the secret.
    pub fn optional_secret(&self, name: &str) -> Result<Option<Secret>, ConfigError> {
        let file_variable = format!("{name}_FILE");
        match (self.optional(name)?, self.optional(&file_variable)?) {
            (Some(_), Some(_)) => Err(ConfigError::Both {
                name: name.to_owned(),
            }),
            (Some(value), None) => Ok(Some(Secret(value))),
            (None, Some(path)) => {
                let text = read_limited(Path::new(&path)).map_err(|source| ConfigError::File {
                    name: file_variable.clone(),
                    path,
                    source,
                })?;
                let text = text.trim_end_matches(['\r', '\n']);
                if text.is_empty() {
                    return Err(ConfigError::invalid(&file_variable, "the file is empty"));
                }
                Ok(Some(Secret(text.to_owned())))
            }
            (None, None) => Ok(None),
        }
    }
}

fn read_limited(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let length = std::fs::File::open(path)?
        .take(SECRET_FILE_BYTES + 1)
        .read_to_string(&mut text)?;
    if length as u64 > SECRET_FILE_BYTES {
        return Err(std::io::Error::other(format!(
            "larger than {SECRET_FILE_BYTES} bytes"
        )));
    }
    Ok(text)
}

/// `LISTEN_ADDRESS`: where the service's public port is bound.
pub fn listen_address(env: &Env) -> Result<SocketAddr, ConfigError> {
    env.parsed("LISTEN_ADDRESS", SocketAddr::from(([0, 0, 0, 0], 8080)))
}

/// `METRICS_ADDRESS`: where the admin port is bound, with metrics that no public route reaches.
pub fn metrics_address(env: &Env) -> Result<SocketAddr, ConfigError> {
    env.parsed("METRICS_ADDRESS", SocketAddr::from(([0, 0, 0, 0], 9090)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_and_errors_name_them() {
        let env = Env::of(&[
            ("A", " x "),
            ("EMPTY", " "),
            ("N", "12"),
            ("BAD", "twelve"),
            ("L", "a, b,,c "),
        ]);
        assert_eq!(env.required("A").unwrap(), "x");
        assert_eq!(env.optional("EMPTY").unwrap(), None);
        assert_eq!(env.required("EMPTY").unwrap_err().to_string(), "EMPTY is not set");
        assert_eq!(env.parsed("N", 1u16).unwrap(), 12);
        assert_eq!(env.parsed("ABSENT", 1u16).unwrap(), 1);
        assert!(
            env.parsed("BAD", 1u16)
                .unwrap_err()
                .to_string()
                .starts_with("BAD is invalid: ")
        );
        assert_eq!(env.list("L").unwrap(), ["a", "b", "c"]);
        assert_eq!(
            env.required_list("EMPTY").unwrap_err().to_string(),
            "EMPTY is not set"
        );
    }

    #[test]
    fn secrets_come_from_the_variable_or_a_file_and_never_print() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url");
        std::fs::write(&path, "hidden\n").unwrap();
        let path = path.to_str().unwrap();
        let empty = folder.path().join("empty");
        std::fs::write(&empty, "\n").unwrap();

        let secret = Env::of(&[("URL_FILE", path)]).secret("URL").unwrap();
        assert_eq!(secret.expose(), "hidden");
        assert_eq!(format!("{secret:?}"), "[secret]");
        assert_eq!(
            Env::of(&[("URL", "direct")]).secret("URL").unwrap().expose(),
            "direct"
        );

        let error = |pairs: &[(&str, &str)]| Env::of(pairs).secret("URL").unwrap_err().to_string();
        assert_eq!(error(&[]), "URL is not set");
        assert_eq!(
            error(&[("URL", "x"), ("URL_FILE", path)]),
            "URL and URL_FILE are both set, one must go"
        );
        assert!(
            error(&[("URL_FILE", "/nowhere/url")]).starts_with("URL_FILE names /nowhere/url, which cannot")
        );
        assert_eq!(
            error(&[("URL_FILE", empty.to_str().unwrap())]),
            "URL_FILE is invalid: the file is empty"
        );
    }

    #[test]
    fn addresses_have_defaults() {
        assert_eq!(listen_address(&Env::of(&[])).unwrap().to_string(), "0.0.0.0:8080");
        assert_eq!(
            metrics_address(&Env::of(&[])).unwrap().to_string(),
            "0.0.0.0:9090"
        );
        let error = listen_address(&Env::of(&[("LISTEN_ADDRESS", "8080")]))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("LISTEN_ADDRESS is invalid"), "{error}");
    }
}
