//! An OIDC issuer for tests: discovery document, key set, and tokens of every good and bad sort.
//!
//! It serves on 127.0.0.1 only, can be stopped, started again on the same port, and change its keys. It has no login
//! and is never part of the demo. **The two RSA keys in this file are test keys**, published here for everyone, because
//! making RSA keys takes seconds in a debug build; the others are made at random. Nothing real may trust any of them.
//!
//! This file needs nothing else of its crate: the tests of `service` include it by its path.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The audience the tokens are for.
pub const AUDIENCE: &str = "homelab";

/// Every scope of docs/API.md.
pub const ALL_SCOPES: &str = "openid profile read:energy read:heatpump read:temperature read:plugs read:settings \
                              write:settings write:plugs";

/// TEST KEYS, PKCS#1: known to everyone, trusted by nothing real.
const TEST_RSA_KEYS: [&str; 2] = [
    "\
     MIIEowIBAAKCAQEAtAgaR6Spqr2SW3geLLfavuyx59BJ5XULK7OTOKk0lWgmy1unJq37eVax6nG8tkLzVo/xE06O8p3YVIXGzs/T\
     sCCzaDiDfn9UDN/SJTLZEa06/lHaCbpUFIoS5YSuKSKPAv00V27e1Z3Nes4rvqMdkPeqjcLjf6ItvsJSFt2x7PggTEC6o9sOodWq\
     jAwHO+UHMnpRC6Qcw3rsBWH2AvhcOhs9wbWRHhS2cBKPOYbPnrPjcui7MF0o2/0SzUevu3rJp/J0hwNmauB+vPFbtcrsBWtqQIJ7\
     AZpt1H8g9r08kaFnwWo1JtpQNlibXAjSmPVKtuDVCDH8WzskPjszChwdsQIDAQABAoIBACJej6HQykFZ2piSyHPyD5U2e8pNJeZj\
     32OS7064Yt0JGqrlDvaf7WvfRK0E1KmZA3qplTUB4OFph/Su62LtIzUzMPz7GQNrzIB+tFA8slshDquhtbX4t/eJ2oyttVAOFG5W\
     J4lvlaQDcch5lrlYy5qy5YEVzTe/HuuVjnVmEoMyEw0n+bG4GBhIeoxkjHzSCpFXsMTI1PHHJ2xpe5PwhxBEaXu16CLsyInCb0NY\
     3ZDQS892m+lVMrIPfP+HiUjjmqRRm3Qh0G3939JnlI7h35m2hKYAg7xjXjYgsqQuQOS2yA8d09GyloWeEfAZD6Oav/+BllWiSv2M\
     daJfS25xywkCgYEA7stCbP18z9ZdILTPGE+fFGnWD8C5vFeqNr/QNixwnsB4kGGzaNUGm8AQUKyU/J4AlMS3OpYvPKCp8vhLYab9\
     SWOMQRV99XeDvmBy9mmnTIAZvrq2Y+zdNLbcP8MpblUMgl0PwTLO1V1KfA0cMPPDVpHGLoCXc4jDIugtZ4Ca/KUCgYEAwQDtI7NT\
     C+5LVTo8yEOkUU55DynMDGphhzZZH46WKkq37miLAT0Y4LhbhBejWOBlIgTEKQ9wrUHWe+BPZDM5prHhwqqxzL5SGu1PSNtuH2Qg\
     6fMEAXSeO4z84gW8ex0hFIlhUajsbPC3dTYLJ5dLRbVK0cJ3xLR745wIVgDUUx0CgYA1P5ICZ8wrNGvz3R3JGAgrLyaSwLEqNIo6\
     Ry+QxPwgCl9YItE08TvWA1AgDTvz0O/kPLF3GQJTjKgZDBETJ3+Xm+EsqjQ6RnpUO4GnPQwXXQFgrJX7VlhFZvlaJpTYi5KMh1/5\
     /vBsV69CVlIRAGpwpXUB7Z7YHokVAZ0OVXk6GQKBgFfeYRho0v1Sjw+NRRDz4sJ1lJ33rINWh3J0pty8INe+TsEG7Yox07qzlE6u\
     KFsVRlXXj6sV8XmfyNN7CwoWXD/tKlhjODF70Iub0QXdiORXxLheQEudWVDJXnRUojv2xhHAfgMcgg8TBKMjaK6srcNdx2N6QubW\
     OLUmW5E0LXZtAoGBANzrAcoZDCiTMWLfg8JQLkbOgRumAinnGbt8o4Wc00ogGsDkNCK6ImpKtMHU20qlEWQlkmbaDhBvZolPa4IV\
     AW/+lvV+wxrNPW5tBx1ZbWFBWRNo0CjA7cfyXiHQBREYFCRSjAsfswc31nUUvsK/tD27oYVbB/d5GPHY6P9pzmv9",
    "\
     MIIEowIBAAKCAQEA0tSFoaU35gzCt1OjYjRXC3Tf2E7hZZQoGlTe4e46eImYP8bXYnxdSMe9RSVH0Y4J+seuodA7Mzqn2wqig/pT\
     X7Z+qjFY3KiNT42/Qx/1OfdVmCSvtT6W3VHW0siuH5kMfYcEMhXQbJ6l7eyA7uEfO6kPRpC2Ybc01Mpo/3Db6HxQ9hnbD85aN9ap\
     g7Qwt9vsiTOBH7b0BLebFnTSjEBWX40s6OUWiJvLkz2Dn/5XAqXMLNXfErZbl0R5JhxyR2P5szj3trVk/dSUANmjpthGAgUE+WdH\
     JjYEehnhx/fNfz9+Rbw0xr2A0tRlLp+9Gtlcv+loqrt0iPBnbd34m2UgcQIDAQABAoIBAC7TE6DcnIckA2ULFuj7Pe/l88dLcaUJ\
     XETI372nFuZpjN5xT6nofCFrdz5xsrs4hD/l9IOsx1Ev8FLmUETmpnjGA+jRz+4mI0htb3K9mM3YgHKrhzjGX2RlRkSHXKDY8Zy5\
     jXWAQcu2Cp1GnzYu2qx59lISVudp9LpkACDnlHfUKM9/X+bF3AWap9fkrAdYPpB5fxEfKRBfWOhoYwcnylkuVUpS/PAeLcUeNs7t\
     IWwpHpYPm5TJM/LANqZ9BeYPqDWdGr4aof+2j35p5UJidtVDHXzkc7VXNbzkmdwA5J0JAYfiiLk/Gm40F4d2LbgWjgRNgU2ndDnR\
     8YhFSnjgZjcCgYEA/3r20V/YUd2jP2gpD4HUoFyAfsrAHi58jLH+8NPQubx+GJHuOXKy+ZqUEjIkWE/nKq0RBz9lkMGt+7Aheqa6\
     G6dJJLATsaLIw1oU5ju9atE2+/kTRA+ge6DLQBk6iHvjXtj118/VeU3WKsmDusjvbxqD6vHtrVYadTOJZj4/cYMCgYEA00JOqFGC\
     e+n6eYgB62IUzn8q6d+4NeIu5ejUjKozqeGQHP17MKTDxfrg1BpxNYpzPHZmZM/CAo/v5lDrcG/kNdcmb+foaSe7iBockhO0+YjV\
     O6U3IYuUeBg4w/NfGicdJfXw/oNE7yDotIzqdf2XwYnKu9Shz4NHkztqRVf8x/sCgYBMrMXovsA4ibFV9VflbIy4+CokY4tXQ5Jj\
     04P1GU0agWTC0QFTQoZOfUMVVvErhAeX+ksTBsbftBEYaZsSqXlPlVxRY3r1pCpm3uFI3AMUTOgYpX9PvPToRbDacvfrQGtT6v+V\
     nq2t81tkigg8BdQ+XxHacHNpw167cBU7l1EJKwKBgEpJJamQR+bUxsvXZH1lltVp6CgnD/p6l20m6x6vds1E0M0w4RGgzmqeplJP\
     HgHqtkzLgYPvflQyUvRU/gUig0ffaNeu342ieBIKxIMlRNz+HaUEmpdEIqf8NHHK8WUb3ecMTXrho+rGUq2yY3ur+aIHlu9nfKKg\
     khmWqe7KWsvjAoGBAJt85RaGTSAQgUY1sUazA4LLQFIN+DoSM5yZccVOCRfPF5nwP4Bked0HtKVsHBSYB1zrArHzXYQWCXFsPRLK\
     aHx75anu+OcLZxHD4oyMkCtWp8rtmhJpiAv4ikSBCqct6LLGOCjhDoWds5lGbdGXiuoOG0jRNWRYUqitrgwK7BH2",
];

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

#[derive(Clone)]
struct Keys {
    generation: usize,
    rsa: Key,
    ec: Key,
    ed: Key,
}

#[derive(Clone)]
struct Key {
    id: String,
    private: EncodingKey,
    public: Jwk,
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
            .route("/keys", get(keys))
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

async fn keys(State(shared): State<Arc<Shared>>) -> Json<Value> {
    shared.fetches.fetch_add(1, Ordering::SeqCst);
    let replaced = shared
        .replaced
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    Json(replaced.unwrap_or_else(|| shared.keys().set()))
}

impl Keys {
    fn make(generation: usize) -> Self {
        let rsa = STANDARD
            .decode(TEST_RSA_KEYS[generation % 2])
            .expect("the test keys are base64");
        Self {
            generation,
            rsa: Key::new(
                format!("rsa-{generation}"),
                EncodingKey::from_rsa_der(&rsa),
                Algorithm::RS256,
            ),
            ec: Key::new(
                format!("ec-{generation}"),
                EncodingKey::from_ec_der(&ec_der()),
                Algorithm::ES256,
            ),
            ed: Key::new(
                format!("ed-{generation}"),
                EncodingKey::from_ed_der(&ed_der()),
                Algorithm::EdDSA,
            ),
        }
    }

    fn of(&self, signing: Signing) -> &Key {
        match signing {
            Signing::Rs256 => &self.rsa,
            Signing::Es256 => &self.ec,
            Signing::EdDsa => &self.ed,
        }
    }

    fn set(&self) -> Value {
        json!({"keys": [self.rsa.public, self.ec.public, self.ed.public]})
    }
}

impl Key {
    fn new(id: String, private: EncodingKey, algorithm: Algorithm) -> Self {
        let mut public = Jwk::from_encoding_key(&private, algorithm).expect("the test keys are well formed");
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
        Self { id, private, public }
    }
}

/// A random P-256 key: PKCS#8 around the scalar alone (RFC 5915 leaves the public key optional).
fn ec_der() -> Vec<u8> {
    let mut scalar: [u8; 32] = rand::random();
    // Below the order of the group, and not zero.
    scalar[0] = 0x7f;
    let private = der(0x30, &[der(0x02, &[1]), der(0x04, &scalar)].concat());
    let ec_public_key = [0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    let p256 = [0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    let algorithm = der(0x30, &[&ec_public_key[..], &p256[..]].concat());
    der(0x30, &[der(0x02, &[0]), algorithm, der(0x04, &private)].concat())
}

/// A random Ed25519 key: PKCS#8 of RFC 8410.
fn ed_der() -> Vec<u8> {
    let seed: [u8; 32] = rand::random();
    let algorithm = der(0x30, &[0x06, 3, 0x2b, 0x65, 0x70]);
    der(
        0x30,
        &[der(0x02, &[0]), algorithm, der(0x04, &der(0x04, &seed))].concat(),
    )
}

/// One DER element.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..0x80 => out.push(length as u8),
        0x80..0x100 => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(content);
    out
}

/// The public RSA key as SubjectPublicKeyInfo.
fn public_der(jwk: &Jwk) -> Vec<u8> {
    let AlgorithmParameters::RSA(rsa) = &jwk.algorithm else {
        unreachable!("asked for the RSA key only")
    };
    let number = |text: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(text).expect("a JWK is base64");
        // DER numbers are signed: a leading zero keeps them positive.
        der(
            0x02,
            &if bytes[0] >= 0x80 {
                [&[0][..], &bytes[..]].concat()
            } else {
                bytes
            },
        )
    };
    let key = der(0x30, &[number(&rsa.n), number(&rsa.e)].concat());
    let algorithm = der(
        0x30,
        &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0],
    );
    der(
        0x30,
        &[algorithm, der(0x03, &[&[0][..], &key[..]].concat())].concat(),
    )
}

fn public_pem(jwk: &Jwk) -> String {
    let text = STANDARD.encode(public_der(jwk));
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    )
}

fn make_token(keys: &Keys, url: &str, spec: TokenSpec) -> String {
    let key = keys.of(spec.signing);
    let mut header = Header::new(
        key.public
            .common
            .key_algorithm
            .and_then(|a| a.try_into().ok())
            .unwrap_or_default(),
    );
    header.kid = match &spec.key_id {
        KeyId::Own => Some(key.id.clone()),
        KeyId::Absent => None,
        KeyId::Text(text) => Some(text.clone()),
    };
    let claims = claims(url, &spec);
    let sign = |header: &Header, key: &EncodingKey| {
        jsonwebtoken::encode(header, &claims, key).expect("the test keys fit their algorithms")
    };
    let secret = |secret: &[u8]| {
        let header = Header {
            alg: Algorithm::HS256,
            ..header.clone()
        };
        sign(&header, &EncodingKey::from_secret(secret))
    };
    let unsigned = |alg: &str| {
        let header = json!({"alg": alg, "typ": "JWT", "kid": header.kid});
        format!("{}.{}", encode(&header), encode(&claims))
    };
    match spec.defect {
        None => sign(&header, &key.private),
        Some(Defect::AlgNone) => format!("{}.", unsigned("none")),
        Some(Defect::AlgNoneSigned) => {
            let signed = sign(&header, &key.private);
            let signature = signed.rsplit('.').next().expect("a token has three parts");
            format!("{}.{signature}", unsigned("nOnE"))
        }
        Some(Defect::Hs256Pem) => secret(public_pem(&keys.rsa.public).as_bytes()),
        Some(Defect::Hs256Der) => secret(&public_der(&keys.rsa.public)),
        Some(Defect::Hs256Jwk) => secret(json!(keys.rsa.public).to_string().as_bytes()),
        Some(Defect::Rs512) => sign(
            &Header {
                alg: Algorithm::RS512,
                ..header.clone()
            },
            &keys.rsa.private,
        ),
        Some(Defect::Ps256) => sign(
            &Header {
                alg: Algorithm::PS256,
                ..header.clone()
            },
            &keys.rsa.private,
        ),
        Some(Defect::TamperedPayload) => {
            let signed = sign(&header, &key.private);
            let mut parts = signed.split('.');
            let (head, _, signature) = (parts.next(), parts.next(), parts.next());
            let mut changed = claims.clone();
            changed["sub"] = json!("somebody else");
            let part = "a token has three parts";
            format!(
                "{}.{}.{}",
                head.expect(part),
                encode(&changed),
                signature.expect(part)
            )
        }
        Some(Defect::ForeignKey) => sign(&header, &Keys::make(keys.generation + 1).of(spec.signing).private),
        Some(Defect::NoSignature) => {
            let signed = sign(&header, &key.private);
            let (message, _) = signed.rsplit_once('.').expect("a token has three parts");
            format!("{message}.")
        }
        Some(Defect::Critical) => {
            let header = Header {
                crit: Some(vec!["exp".to_owned()]),
                ..header.clone()
            };
            sign(&header, &key.private)
        }
    }
}

fn claims(url: &str, spec: &TokenSpec) -> Value {
    let now = chrono::Utc::now().timestamp();
    let mut claims = json!({
        "iss": spec.issuer.as_deref().unwrap_or(url),
        "iat": now,
        "preferred_username": "demo",
        "name": "Demo User",
    });
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            claims[name] = value;
        }
    };
    put("sub", spec.subject.as_ref().map(|text| json!(text)));
    put("aud", (!spec.audience.is_null()).then(|| spec.audience.clone()));
    put("exp", spec.expires_in.map(|seconds| json!(now + seconds)));
    put("nbf", spec.valid_in.map(|seconds| json!(now + seconds)));
    match &spec.scopes {
        Scopes::Scope(text) => put("scope", Some(json!(text))),
        Scopes::ScpArray(list) => put("scp", Some(json!(list))),
        Scopes::ScpText(text) => put("scp", Some(json!(text))),
        Scopes::Absent => {}
    }
    claims
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}
