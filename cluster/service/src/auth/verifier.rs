//! Verifies a token given as text.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use reqwest::Client;
use serde::Deserialize;

use super::claims::{Claims, Payload};
use super::issuer::{Issuer, IssuerMetrics};
use super::keys::NoKey;
use super::settings::AuthSettings;
use crate::health::Health;
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::problem::Problem;

/// Difference of clocks between the issuer and this machine that `exp` and `nbf` allow for.
pub const LEEWAY: Duration = Duration::from_secs(30);
/// Longest token looked at; one with many groups has 4 KiB.
const TOKEN_BYTES: usize = 16 * 1024;
/// Redirects followed to an issuer's documents.
const REDIRECTS: usize = 3;
/// When a caller should ask again while no keys are there.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no token.
    #[error("an access token is required")]
    Missing,
    /// Not a JWT, or a claim is missing or of the wrong type.
    #[error("the access token is malformed")]
    Malformed,
    /// Signed by an algorithm other than RS256, ES256 or EdDSA, or not at all.
    #[error("the access token's algorithm is not accepted")]
    Algorithm,
    /// `iss` is not one of the configured issuers.
    #[error("the access token's issuer is not accepted")]
    Issuer,
    /// No key of the issuer fits.
    #[error("the access token's key is not known")]
    Key,
    /// The signature does not fit the content.
    #[error("the access token's signature is invalid")]
    Signature,
    /// `exp` has passed.
    #[error("the access token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("the access token is not valid yet")]
    NotYetValid,
    /// `aud` names none of the configured audiences.
    #[error("the access token is for another audience")]
    Audience,
    /// The issuer's keys were never there since the start.
    #[error("the issuer's keys are not there yet")]
    Unavailable,
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing => Problem::no_token(),
            AuthError::Unavailable => Problem::unavailable(RETRY_AFTER),
            _ => Problem::bad_token(&error.to_string()),
        }
    }
}

/// Verifies tokens. Clones share the keys.
#[derive(Clone)]
pub struct Verifier {
    issuers: Arc<[Arc<Issuer>]>,
    audiences: Arc<[String]>,
}

impl Verifier {
    /// Starts fetching the issuers' keys on the lifecycle and adds the readiness check `issuer`, which fails until
    /// the first issuer's keys are there. An issuer that is down delays nothing.
    pub fn start(
        settings: AuthSettings,
        lifecycle: &Lifecycle,
        health: &Health,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let client = client(&settings)?;
        let check = health.check("issuer");
        let issuer_metrics = IssuerMetrics {
            fetches: metrics.counters(
                "issuer_fetches_total",
                "Fetches of an issuer's keys by outcome.",
                &["issuer", "outcome"],
            ),
            refused: metrics.counters(
                "issuer_refetches_refused_total",
                "Fetches not done for an unknown key because too many were asked for.",
                &["issuer"],
            ),
            keys: metrics.gauges("issuer_keys_count", "Usable keys of an issuer.", &["issuer"]),
        };
        let issuers: Arc<[Arc<Issuer>]> = settings
            .issuers
            .into_iter()
            .map(|issuer| {
                Arc::new(Issuer::new(
                    issuer,
                    settings.pace.clone(),
                    client.clone(),
                    issuer_metrics.clone(),
                ))
            })
            .collect();
        for issuer in issuers.iter() {
            let (issuer, check, stop) = (issuer.clone(), check.clone(), lifecycle.token());
            lifecycle.spawn("issuer keys", async move { issuer.run(check, stop).await });
        }
        Ok(Self {
            issuers,
            audiences: settings.audiences.into(),
        })
    }

    /// Who the bearer of `token` is. Waits for a fetch of keys at most a few seconds, and only when the token names a
    /// key that is not known.
    pub async fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        if token.len() > TOKEN_BYTES {
            return Err(AuthError::Malformed);
        }
        let header = decode_header(token)?;
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA) {
            return Err(AuthError::Algorithm);
        }
        // RFC 7515: what is marked critical must be understood, and none of it is.
        if header.crit.is_some() {
            return Err(AuthError::Malformed);
        }
        let issuer = self.issuer_of(token)?;
        let key_id = header.kid.as_deref();
        let mut keys = issuer.keys();
        let known = |keys: &Option<Arc<_>>| {
            keys.as_ref().is_some_and(|keys: &Arc<super::keys::Keys>| {
                keys.find(key_id, header.alg).err() != Some(NoKey::Unknown)
            })
        };
        if !known(&keys) {
            issuer.refetch().await;
            keys = issuer.keys();
        }
        let keys = keys.ok_or(AuthError::Unavailable)?;
        let key = keys.find(key_id, header.alg).map_err(|_| AuthError::Key)?;
        if let Some(claims) = keys.verified(token) {
            return if Utc::now() - LEEWAY > claims.expires_at {
                Err(AuthError::Expired)
            } else {
                Ok(claims)
            };
        }

        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[issuer.name()]);
        validation.set_audience(&self.audiences);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let decoded =
            jsonwebtoken::decode::<Payload>(token, key, &validation).map_err(|e| reason(e.kind()))?;
        let claims = decoded.claims.into_claims().ok_or(AuthError::Malformed)?;
        keys.remember(token, claims.clone());
        Ok(claims)
    }

    /// The issuer a token claims to be of. This reads the claims before the signature is checked, only to choose
    /// whose keys must verify it.
    fn issuer_of(&self, token: &str) -> Result<&Arc<Issuer>, AuthError> {
        #[derive(Deserialize)]
        struct Claimed {
            iss: String,
        }
        let claimed: Claimed =
            jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| AuthError::Malformed)?;
        self.issuers
            .iter()
            .find(|issuer| issuer.name() == claimed.iss)
            .ok_or(AuthError::Issuer)
    }
}

/// The header, with an unknown `alg` (`none` is one) told apart from nonsense.
fn decode_header(token: &str) -> Result<jsonwebtoken::Header, AuthError> {
    jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
        ErrorKind::Json(_) => AuthError::Algorithm,
        _ => AuthError::Malformed,
    })
}

fn reason(kind: &ErrorKind) -> AuthError {
    match kind {
        ErrorKind::ExpiredSignature => AuthError::Expired,
        ErrorKind::ImmatureSignature => AuthError::NotYetValid,
        ErrorKind::InvalidAudience => AuthError::Audience,
        ErrorKind::InvalidIssuer => AuthError::Issuer,
        ErrorKind::InvalidAlgorithm => AuthError::Algorithm,
        ErrorKind::InvalidSignature => AuthError::Signature,
        _ => AuthError::Malformed,
    }
}

fn client(settings: &AuthSettings) -> anyhow::Result<Client> {
    // The provider is one for the process; the first service or test that comes installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let urls = settings.issuers.iter();
    let https_only = urls.clone().all(|i| i.issuer.starts_with("https:"))
        && urls
            .clone()
            .all(|i| i.jwks_url.as_ref().is_none_or(|url| url.scheme() == "https"));
    let builder = || {
        Client::builder()
            .connect_timeout(Duration::from_secs(3))
            .redirect(reqwest::redirect::Policy::limited(REDIRECTS))
            .https_only(https_only)
    };
    match builder().build() {
        Ok(client) => Ok(client),
        // A container without any certificate authority can still reach an issuer inside the cluster by http.
        Err(error) if !https_only => {
            tracing::warn!(
                "no certificate authorities on this machine, https issuers cannot be reached: {error}"
            );
            builder()
                .tls_certs_only([])
                .build()
                .context("cannot make an HTTP client")
        }
        Err(error) => Err(error).context("cannot make an HTTP client for the issuers"),
    }
}
