//! What a verified token says about its bearer.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::problem::Problem;

/// Longest `sub` (OpenID Connect Core, 2). Whoever changes something is written down by it.
const MAX_SUBJECT_BYTES: usize = 255;

/// The claims of a token that was verified. There is no other way to get one than
/// [`Verifier::verify`](super::Verifier::verify).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claims {
    /// `sub`: who the caller is, stable at the issuer.
    pub subject: String,
    /// `preferred_username`, for display only.
    pub username: Option<String>,
    /// `name`, for display only.
    pub name: Option<String>,
    /// From `scope` and `scp`.
    pub scopes: BTreeSet<String>,
    /// `exp`: when the token ends.
    pub expires_at: DateTime<Utc>,
}

impl Claims {
    /// Whether the token carries `scope`.
    pub fn has(&self, scope: &str) -> bool {
        self.scopes.contains(scope)
    }

    /// 403 that names the scope, unless the token carries it.
    pub fn require(&self, scope: &str) -> Result<(), Problem> {
        self.require_any(&[scope])
    }

    /// 403 that names the scopes, unless the token carries one of them.
    pub fn require_any(&self, scopes: &[&str]) -> Result<(), Problem> {
        if scopes.iter().any(|scope| self.has(scope)) {
            Ok(())
        } else {
            Err(Problem::missing_scope(&scopes.join(" or ")))
        }
    }
}

/// The payload as issuers write it. `iss`, `aud`, `exp` and `nbf` are checked by the library.
#[derive(Deserialize)]
pub(super) struct Payload {
    sub: String,
    preferred_username: Option<String>,
    name: Option<String>,
    scope: Option<ScopeList>,
    scp: Option<ScopeList>,
    exp: f64,
}

/// A space-separated text (RFC 8693) or an array of texts (Entra, Okta).
#[derive(Deserialize)]
#[serde(untagged)]
enum ScopeList {
    Text(String),
    Array(Vec<String>),
}

impl ScopeList {
    fn scopes(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            ScopeList::Text(text) => Box::new(text.split_ascii_whitespace()),
            ScopeList::Array(entries) => {
                Box::new(entries.iter().flat_map(|entry| entry.split_ascii_whitespace()))
            }
        }
    }
}

impl Payload {
    /// None when `sub` is empty, longer than it may be or has control characters, which no database stores.
    pub(super) fn into_claims(self) -> Option<Claims> {
        let fits = (1..=MAX_SUBJECT_BYTES).contains(&self.sub.len());
        if !fits || self.sub.chars().any(char::is_control) {
            return None;
        }
        // The library has refused what is not finite; a year beyond the calendar ends at the calendar's end.
        let expires_at = DateTime::from_timestamp(self.exp as i64, 0).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let scopes = [&self.scope, &self.scp]
            .into_iter()
            .flatten()
            .flat_map(ScopeList::scopes)
            .map(str::to_owned)
            .collect();
        Some(Claims {
            subject: self.sub,
            username: self.preferred_username.filter(|text| !text.is_empty()),
            name: self.name.filter(|text| !text.is_empty()),
            scopes,
            expires_at,
        })
    }
}
