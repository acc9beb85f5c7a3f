//! An OIDC issuer for tests: discovery document, key set, and tokens of every good and bad sort.
//!
//! It serves on 127.0.0.1 only, can be stopped, started again on the same port, and change its keys. It has no login
//! and is never part of the demo. **The two RSA keys in `keys` are test keys**, published here for everyone, because
//! making RSA keys takes seconds in a debug build; the others are made at random. Nothing real may trust any of them.
//!
//! This folder needs nothing else of its crate: the tests of `service` include it by its path.

mod keys;
mod sign;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::keys::Keys;
use self::sign::make_token;

/// The audience the tokens are for.
pub const AUDIENCE: &str = "homelab";

/// Every scope of docs/API.md.
pub const ALL_SCOPES: &str = "openid profile read:energy read:heatpump read:temperature read:plugs read:settings \
                              write:settings write:plugs";

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// RSA, 2048 bits.
    Rs256,
    /// EC, P-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// What stands in the header's `kid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyId {
    /// The id of the key that signs.
    Own,
    /// None.
    Absent,
    /// This one, whatever key signs.
    Text(String),
}

/// How a token carries its scopes.
#[derive(Clone, Debug, PartialEq)]
pub enum Scopes {
    /// `scope`, a text separated by spaces.
    Scope(String),
    /// `scp`, an array of texts.
    ScpArray(Vec<String>),
    /// `scp`, a text separated by spaces.
    ScpText(String),
    /// Neither.
    Absent,
}

/// What is wrong with a token beyond its claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// `alg: none` and an empty signature.
    AlgNone,
    /// `alg: none` in other letters, with a signature of the real key.
    AlgNoneSigned,
    /// HS256 with the PEM of the public key as the secret.
    Hs256Pem,
    /// HS256 with the DER of the public key as the secret.
    Hs256Der,
    /// HS256 with the JSON of the public key as the secret.
    Hs256Jwk,
    /// RS512: the right key, an algorithm that is not accepted.
    Rs512,
    /// PS256: the right key, an algorithm that is not accepted.
    Ps256,
    /// The payload was changed after signing.
    TamperedPayload,
    /// Signed by a key the issuer does not publish, under the id of one it does.
    ForeignKey,
    /// The signature was cut off.
    NoSignature,
    /// `crit` names an extension.
    Critical,
}

/// A token to be made. The default is a good one with every scope.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenSpec {
    /// How it is signed.
    pub signing: Signing,
    /// Its `kid`.
    pub key_id: KeyId,
    /// `sub`; absent when none.
    pub subject: Option<String>,
    /// `iss`; the issuer's own when none.
    pub issuer: Option<String>,
    /// `aud`, a text or an array; absent when null.
    pub audience: Value,
    /// `exp`, in seconds from now; absent when none.
    pub expires_in: Option<i64>,
    /// `nbf`, in seconds from now; absent when none.
    pub valid_in: Option<i64>,
    /// Its scopes.
    pub scopes: Scopes,
    /// What is wrong with it.
    pub defect: Option<Defect>,
}

impl Default for TokenSpec {
    fn default() -> Self {
        Self {
            signing: Signing::Rs256,
            key_id: KeyId::Own,
            subject: Some("6f1c0a".to_owned()),
            issuer: None,
            audience: json!(AUDIENCE),
            expires_in: Some(300),
            valid_in: Some(-10),
            scopes: Scopes::Scope(ALL_SCOPES.to_owned()),
            defect: None,
        }
    }
}

impl TokenSpec {
    /// A good token with these scopes, separated by spaces.
    pub fn with_scopes(scopes: &str) -> Self {
        Self {
            scopes: Scopes::Scope(scopes.to_owned()),
            ..Self::default()
        }
    }
}

/// A running issuer. It stops when it is dropped.
pub struct TestIssuer {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: Option<(CancellationToken, JoinHandle<std::io::Result<()>>)>,
}

struct Shared {
    url: String,
    keys: Mutex<Keys>,
    /// What is served in place of the keys, where a test says so.
    replaced: Mutex<Option<Value>>,
    fetches: AtomicU64,
}

impl TestIssuer {
    /// Starts an issuer on a free port.
    pub async fn start() -> anyhow::Result<Self> {
        let mut issuer = Self::stopped().await?;
        issuer.restart().await?;
        Ok(issuer)
    }

    /// An issuer that has its address but does not serve yet, as one that is down when a service starts.
    pub async fn stopped() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("cannot bind the test issuer")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            url: format!("http://{address}"),
            keys: Mutex::new(Keys::make(0)),
            replaced: Mutex::new(None),
            fetches: AtomicU64::new(0),
        });
        Ok(Self {
            address,
            shared,
            server: None,
        })
    }

    /// The issuer's name, which is its address.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// Where its keys are.
    pub fn keys_url(&self) -> String {
        format!("{}/keys", self.shared.url)
    }

    /// How often its keys were fetched.
    pub fn key_fetches(&self) -> u64 {
        self.shared.fetches.load(Ordering::SeqCst)
    }

    /// Stops serving: connections are closed and new ones refused.
    pub async fn stop(&mut self) {
        if let Some((stop, server)) = self.server.take() {
            stop.cancel();
            // How the server ended is of no interest: it is gone.
            let _ = server.await;
        }
    }

    /// Serves on the same address again, with the keys it has.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop().await;
        let listener = TcpListener::bind(self.address)
            .await
            .context("cannot bind the test issuer")?;
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(key_set))
            .with_state(self.shared.clone());
        let stop = CancellationToken::new();
        let server = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        self.server = Some((stop, tokio::spawn(server.into_future())));
        Ok(())
    }

    /// New keys in place of the old ones, with new ids.
    pub fn rotate(&self) {
        let mut keys = self.shared.keys();
        *keys = Keys::make(keys.generation + 1);
    }

    /// Serves this in place of the key set; `None` goes back to the real one.
    pub fn replace_key_set(&self, set: Option<Value>) {
        *self
            .shared
            .replaced
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = set;
    }

    /// The real key set: one RSA, one EC and one Ed25519 key.
    pub fn key_set(&self) -> Value {
        self.shared.keys().set()
    }

    /// Makes a token.
    pub fn token(&self, spec: TokenSpec) -> String {
        let keys = self.shared.keys().clone();
        make_token(&keys, &self.shared.url, spec)
    }

    /// A good token with these scopes, separated by spaces.
    pub fn good(&self, scopes: &str) -> String {
        self.token(TokenSpec::with_scopes(scopes))
    }

    /// One token of every sort that no service may accept, each with every scope, by name.
    pub fn bad_tokens(&self) -> Vec<(&'static str, String)> {
        let spec = TokenSpec::default;
        let defect = |defect| TokenSpec {
            defect: Some(defect),
            ..spec()
        };
        let ec_id = self.shared.keys().ec.id.clone();
        [
            (
                "expired",
                TokenSpec {
                    expires_in: Some(-120),
                    ..spec()
                },
            ),
            (
                "for U+0000 as the person",
                TokenSpec {
                    subject: Some("a\0b".into()),
                    ..spec()
                },
            ),
            (
                "for a person of 300 characters",
                TokenSpec {
                    subject: Some("a".repeat(300)),
                    ..spec()
                },
            ),
            (
                "without exp",
                TokenSpec {
                    expires_in: None,
                    ..spec()
                },
            ),
            (
                "not valid yet",
                TokenSpec {
                    valid_in: Some(120),
                    ..spec()
                },
            ),
            (
                "of another issuer",
                TokenSpec {
                    issuer: Some("https://elsewhere.example".into()),
                    ..spec()
                },
            ),
            (
                "of nearly the issuer",
                TokenSpec {
                    issuer: Some(format!("{}/", self.url())),
                    ..spec()
                },
            ),
            (
                "for another audience",
                TokenSpec {
                    audience: json!("elsewhere"),
                    ..spec()
                },
            ),
            (
                "for other audiences",
                TokenSpec {
                    audience: json!(["a", "b"]),
                    ..spec()
                },
            ),
            (
                "without audience",
                TokenSpec {
                    audience: Value::Null,
                    ..spec()
                },
            ),
            (
                "without subject",
                TokenSpec {
                    subject: None,
                    ..spec()
                },
            ),
            (
                "with an empty subject",
                TokenSpec {
                    subject: Some(String::new()),
                    ..spec()
                },
            ),
            ("alg none", defect(Defect::AlgNone)),
            ("alg nOnE, signed", defect(Defect::AlgNoneSigned)),
            ("HS256 with the public key's PEM", defect(Defect::Hs256Pem)),
            ("HS256 with the public key's DER", defect(Defect::Hs256Der)),
            ("HS256 with the public key's JWK", defect(Defect::Hs256Jwk)),
            ("RS512", defect(Defect::Rs512)),
            ("PS256", defect(Defect::Ps256)),
            ("tampered payload", defect(Defect::TamperedPayload)),
            (
                "tampered payload, ES256",
                TokenSpec {
                    signing: Signing::Es256,
                    ..defect(Defect::TamperedPayload)
                },
            ),
            (
                "tampered payload, EdDSA",
                TokenSpec {
                    signing: Signing::EdDsa,
                    ..defect(Defect::TamperedPayload)
                },
            ),
            ("signed by a foreign key", defect(Defect::ForeignKey)),
            (
                "signed by a foreign key, ES256",
                TokenSpec {
                    signing: Signing::Es256,
                    ..defect(Defect::ForeignKey)
                },
            ),
            ("without signature", defect(Defect::NoSignature)),
            ("with a critical extension", defect(Defect::Critical)),
            (
                "unknown key id",
                TokenSpec {
                    key_id: KeyId::Text("unknown".into()),
                    ..spec()
                },
            ),
            (
                "key id of a key of another type",
                TokenSpec {
                    key_id: KeyId::Text(ec_id),
                    ..spec()
                },
            ),
        ]
        .into_iter()
        .map(|(name, spec)| (name, self.token(spec)))
        .chain([
            ("not a token", "not-a-token".to_owned()),
            ("three dots", "...".to_owned()),
            ("too long", format!("{}x", "x".repeat(20_000))),
        ])
        .collect()
    }
}

impl Drop for TestIssuer {
    fn drop(&mut self) {
        if let Some((stop, _)) = &self.server {
            stop.cancel();
        }
    }
}

impl Shared {
    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn discovery(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({
        "issuer": shared.url,
        "jwks_uri": format!("{}/keys", shared.url),
        "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
    }))
}

async fn key_set(State(shared): State<Arc<Shared>>) -> Json<Value> {
    shared.fetches.fetch_add(1, Ordering::SeqCst);
    let replaced = shared
        .replaced
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    Json(replaced.unwrap_or_else(|| shared.keys().set()))
}
