//! Which issuers are believed, from the environment.

use std::time::Duration;

use reqwest::Url;

use crate::config::{ConfigError, Env};

/// Who may sign tokens, and for whom.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// At least one.
    pub issuers: Vec<IssuerSettings>,
    /// A token must name at least one of these in `aud`.
    pub audiences: Vec<String>,
    /// How often keys are fetched.
    pub pace: Pace,
}

/// One issuer.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// Exactly as in the tokens' `iss`.
    pub issuer: String,
    /// Where its keys are; without it the issuer's discovery document says so.
    pub jwks_url: Option<Url>,
}

/// How often keys are fetched. The defaults serve production; tests shorten them.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Between two fetches when all is well: a key the issuer withdrew is believed at most this long.
    pub refresh: Duration,
    /// First pause after a failed fetch; it doubles.
    pub retry_first: Duration,
    /// Longest pause after failed fetches: how long an issuer that is back may go unnoticed.
    pub retry_cap: Duration,
    /// Fetches that tokens with an unknown key can cause at once: more than one, so that a rotation right after a
    /// fetch is seen.
    pub refetch_burst: u32,
    /// After the burst, the time between two fetches that such tokens can cause.
    pub refetch_interval: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(300),
            retry_first: Duration::from_millis(500),
            retry_cap: Duration::from_secs(10),
            refetch_burst: 3,
            refetch_interval: Duration::from_secs(10),
        }
    }
}

impl AuthSettings {
    /// Reads `OIDC_ISSUERS`, `OIDC_AUDIENCES` and `OIDC_JWKS_URL`.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let names = env.required_list("OIDC_ISSUERS")?;
        for name in &names {
            http_url("OIDC_ISSUERS", name)?;
        }
        let audiences = env.required_list("OIDC_AUDIENCES")?;
        let jwks_url = env
            .optional("OIDC_JWKS_URL")?
            .map(|text| http_url("OIDC_JWKS_URL", &text))
            .transpose()?;
        if jwks_url.is_some() && names.len() > 1 {
            return Err(ConfigError::invalid(
                "OIDC_JWKS_URL",
                "only possible with one issuer in OIDC_ISSUERS",
            ));
        }
        let issuers = names
            .into_iter()
            .map(|issuer| IssuerSettings {
                issuer,
                jwks_url: jwks_url.clone(),
            })
            .collect();
        Ok(Self {
            issuers,
            audiences,
            pace: Pace::default(),
        })
    }
}

fn http_url(name: &str, text: &str) -> Result<Url, ConfigError> {
    let url = Url::parse(text).map_err(|error| ConfigError::invalid(name, format!("{text:?}: {error}")))?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(url)
    } else {
        Err(ConfigError::invalid(
            name,
            format!("{text:?} is no http or https address"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let check = |pairs: &[(&str, &str)], want: &str| {
            let got = AuthSettings::from_env(&Env::of(pairs));
            let got = got.map_or_else(
                |e| e.to_string(),
                |s| format!("{} {}", s.issuers.len(), s.audiences.len()),
            );
            assert!(got.starts_with(want), "{got}");
        };
        let audience = ("OIDC_AUDIENCES", "a,b");
        check(&[audience], "OIDC_ISSUERS is not set");
        check(&[("OIDC_ISSUERS", "https://i")], "OIDC_AUDIENCES is not set");
        check(&[("OIDC_ISSUERS", "i"), audience], "OIDC_ISSUERS is invalid");
        check(
            &[("OIDC_ISSUERS", "file:///i"), audience],
            "OIDC_ISSUERS is invalid",
        );
        check(&[("OIDC_ISSUERS", "https://i, https://j/"), audience], "2 2");
        check(
            &[
                ("OIDC_ISSUERS", "https://i"),
                audience,
                ("OIDC_JWKS_URL", "https://i/keys"),
            ],
            "1 2",
        );
        check(
            &[
                ("OIDC_ISSUERS", "https://i,https://j"),
                audience,
                ("OIDC_JWKS_URL", "https://i/keys"),
            ],
            "OIDC_JWKS_URL is invalid: only possible with one issuer",
        );
    }
}
