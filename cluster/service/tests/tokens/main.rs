//! The verification of tokens against a real issuer on a local port: which tokens pass, which do not and why, and
//! what happens while the issuer is away, changes its keys, or is asked for keys that do not exist.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod handlers;
#[path = "../../../../tests/stack/src/issuer/mod.rs"]
mod issuer;
mod keys;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::FromRef;
use axum::http::Request;
use axum::routing::get;
use issuer::{AUDIENCE, Defect, KeyId, Scopes, Signing, TestIssuer, TokenSpec};
use serde_json::{Value, json};
use service::auth::{AuthSettings, IssuerSettings, Pace};
use service::scope::{AnyReading, ReadEnergy};
use service::{AuthError, Claims, Health, Lifecycle, Metrics, Scoped, Verifier};
use tower::ServiceExt;

/// Far longer than anything here takes; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(20);

/// A verifier with its lifecycle, which ends with the test.
struct Fixture {
    verifier: Verifier,
    health: Health,
    lifecycle: Lifecycle,
    metrics: Metrics,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.lifecycle.stop();
    }
}

fn pace() -> Pace {
    Pace {
        refresh: Duration::from_secs(3600),
        retry_first: Duration::from_millis(20),
        retry_cap: Duration::from_millis(50),
        refetch_burst: 3,
        refetch_interval: Duration::from_secs(3600),
    }
}

fn start_with(issuers: &[&TestIssuer], pace: Pace) -> Fixture {
    let lifecycle = Lifecycle::new();
    let health = Health::new(&lifecycle);
    let metrics = Metrics::new("test");
    let settings = AuthSettings {
        issuers: issuers
            .iter()
            .map(|i| IssuerSettings {
                issuer: i.url().to_owned(),
                jwks_url: None,
            })
            .collect(),
        audiences: vec!["other".to_owned(), AUDIENCE.to_owned()],
        pace,
    };
    let verifier = Verifier::start(settings, &lifecycle, &health, &metrics).unwrap();
    Fixture {
        verifier,
        health,
        lifecycle,
        metrics,
    }
}

impl Fixture {
    async fn ready(&self) {
        until("the keys are there", async || self.health.failing().is_empty()).await;
    }

    async fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        tokio::time::timeout(DEADLINE, self.verifier.verify(token))
            .await
            .expect("an answer in time")
    }
}

async fn started() -> (TestIssuer, Fixture) {
    let issuer = TestIssuer::start().await.unwrap();
    let fixture = start_with(&[&issuer], pace());
    fixture.ready().await;
    (issuer, fixture)
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn good_tokens_pass() {
    let (issuer, fixture) = started().await;
    let spec = TokenSpec::default;
    for (name, spec) in [
        ("RS256", spec()),
        (
            "ES256",
            TokenSpec {
                signing: Signing::Es256,
                ..spec()
            },
        ),
        (
            "EdDSA",
            TokenSpec {
                signing: Signing::EdDsa,
                ..spec()
            },
        ),
        (
            "several audiences",
            TokenSpec {
                audience: json!(["elsewhere", AUDIENCE]),
                ..spec()
            },
        ),
        (
            "without nbf",
            TokenSpec {
                valid_in: None,
                ..spec()
            },
        ),
        (
            "expired within the leeway",
            TokenSpec {
                expires_in: Some(-10),
                ..spec()
            },
        ),
        (
            "valid soon, within the leeway",
            TokenSpec {
                valid_in: Some(10),
                ..spec()
            },
        ),
        (
            "without key id, one key of the type",
            TokenSpec {
                key_id: KeyId::Absent,
                ..spec()
            },
        ),
    ] {
        let claims = fixture
            .verify(&issuer.token(spec))
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(claims.subject, "6f1c0a", "{name}");
        assert_eq!(claims.username.as_deref(), Some("demo"), "{name}");
        assert_eq!(claims.name.as_deref(), Some("Demo User"), "{name}");
        assert!(claims.has("read:energy"), "{name}");
    }
}

#[tokio::test]
async fn bad_tokens_are_refused_for_their_reason() {
    let (issuer, fixture) = started().await;
    let want = |name: &str| match name {
        "expired" => AuthError::Expired,
        "not valid yet" => AuthError::NotYetValid,
        "of another issuer" | "of nearly the issuer" => AuthError::Issuer,
        "for another audience" | "for other audiences" => AuthError::Audience,
        "alg none" | "alg nOnE, signed" | "RS512" | "PS256" => AuthError::Algorithm,
        name if name.starts_with("HS256") => AuthError::Algorithm,
        name if name.starts_with("tampered") || name.starts_with("signed by") => AuthError::Signature,
        "without signature" => AuthError::Signature,
        "unknown key id" | "key id of a key of another type" => AuthError::Key,
        _ => AuthError::Malformed,
    };
    let table = issuer.bad_tokens();
    assert!(table.len() >= 25);
    for (name, token) in table {
        assert_eq!(fixture.verify(&token).await, Err(want(name)), "{name}");
    }
}

/// A token that passed is remembered; nothing but the same bytes profits from that, and not beyond its time.
#[tokio::test]
async fn a_token_that_passed_before_is_still_checked() {
    let (issuer, fixture) = started().await;
    let good = issuer.good("read:energy");
    let first = fixture.verify(&good).await.unwrap();
    assert_eq!(fixture.verify(&good).await.unwrap(), first);
    for at in [good.len() - 20, good.len() / 2] {
        let mut changed = good.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(fixture.verify(&changed).await.is_err(), "changed at {at}");
    }
    // The largest number that every JSON library writes; its year is beyond any calendar.
    let endless = issuer.token(TokenSpec {
        expires_in: Some((1 << 53) - 1 - chrono::Utc::now().timestamp()),
        ..TokenSpec::default()
    });
    for turn in ["at first", "again"] {
        assert!(fixture.verify(&endless).await.is_ok(), "{turn}");
    }
    // Within the leeway of 30 s by a few seconds: passes, and then ends although it passed.
    until("a token passes shortly before its end", async || {
        let ending = issuer.token(TokenSpec {
            expires_in: Some(-26),
            ..TokenSpec::default()
        });
        if fixture.verify(&ending).await.is_err() {
            return false;
        }
        until("it ends", async || {
            fixture.verify(&ending).await == Err(AuthError::Expired)
        })
        .await;
        true
    })
    .await;
}

#[tokio::test]
async fn scopes_come_from_either_claim_in_either_form() {
    let (issuer, fixture) = started().await;
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (scopes, want) in [
        (
            Scopes::Scope("read:energy  write:plugs".into()),
            list(&["read:energy", "write:plugs"]),
        ),
        (
            Scopes::ScpArray(list(&["read:energy", "write:plugs"])),
            list(&["read:energy", "write:plugs"]),
        ),
        (Scopes::ScpText("read:energy".into()), list(&["read:energy"])),
        (Scopes::Absent, list(&[])),
    ] {
        let token = issuer.token(TokenSpec {
            scopes: scopes.clone(),
            ..TokenSpec::default()
        });
        let claims = fixture.verify(&token).await.unwrap();
        assert_eq!(claims.scopes.into_iter().collect::<Vec<_>>(), want, "{scopes:?}");
    }
}
