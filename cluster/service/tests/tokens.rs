//! The verification of tokens against a real issuer on a local port: which tokens pass, which do not and why, and
//! what happens while the issuer is away, changes its keys, or is asked for keys that do not exist.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../../tests/stack/src/issuer/mod.rs"]
mod issuer;

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

#[tokio::test]
async fn a_token_without_key_id_passes_only_while_one_key_can_be_meant() {
    let (issuer, fixture) = started().await;
    let old = issuer.key_set()["keys"].as_array().unwrap().clone();
    issuer.rotate();
    let both = [issuer.key_set()["keys"].as_array().unwrap().clone(), old].concat();
    issuer.replace_key_set(Some(json!({ "keys": both })));
    // An unknown key id makes the verifier fetch the set with two keys of each type.
    let _ = fixture
        .verify(&issuer.token(TokenSpec {
            key_id: KeyId::Text("new".into()),
            ..TokenSpec::default()
        }))
        .await;
    let token = |key_id| {
        issuer.token(TokenSpec {
            key_id,
            ..TokenSpec::default()
        })
    };
    assert_eq!(fixture.verify(&token(KeyId::Absent)).await, Err(AuthError::Key));
    fixture
        .verify(&token(KeyId::Own))
        .await
        .expect("a token that names its key passes");
}

#[tokio::test]
async fn keys_serve_only_what_the_issuer_says_they_are_for() {
    let (issuer, fixture) = started().await;
    let with = async |change: &dyn Fn(&mut Value)| {
        issuer.rotate();
        let mut set = issuer.key_set();
        change(&mut set["keys"][0]);
        issuer.replace_key_set(Some(set));
        // A verifier of its own for each case: the budget for fetches is not what is tested here.
        let fixture = start_with(&[&issuer], pace());
        fixture.ready().await;
        fixture.verify(&issuer.token(TokenSpec::default())).await.err()
    };
    assert_eq!(with(&|_| {}).await, None);
    assert_eq!(with(&|key| key["use"] = json!("enc")).await, Some(AuthError::Key));
    assert_eq!(
        with(&|key| key["alg"] = json!("RS512")).await,
        Some(AuthError::Key)
    );
    assert_eq!(
        with(&|key| key["alg"] = json!("HS256")).await,
        Some(AuthError::Key)
    );
    assert_eq!(
        with(&|key| key["key_ops"] = json!(["encrypt"])).await,
        Some(AuthError::Key)
    );
    assert_eq!(
        with(&|key| key["n"] = json!("AQAB")).await,
        Some(AuthError::Key),
        "a short modulus"
    );
    let secret = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "rsa-6", "alg": "HS256"});
    assert_eq!(with(&|key| *key = secret.clone()).await, Some(AuthError::Key));
    assert_eq!(
        with(&|key| *key = json!("nonsense")).await,
        Some(AuthError::Key),
        "the other keys are kept"
    );
    drop(fixture);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_causes_few_fetches_and_stops_nobody() {
    let (issuer, fixture) = started().await;
    let before = issuer.key_fetches();
    let verifier = Arc::new(fixture.verifier.clone());
    let mut flood = tokio::task::JoinSet::new();
    for n in 0..300 {
        let token = issuer.token(TokenSpec {
            signing: Signing::EdDsa,
            key_id: KeyId::Text(format!("flood-{n}")),
            ..TokenSpec::default()
        });
        let verifier = verifier.clone();
        flood.spawn(async move { verifier.verify(&token).await });
    }
    while let Some(outcome) = flood.join_next().await {
        assert_eq!(outcome.unwrap(), Err(AuthError::Key));
    }
    let caused = issuer.key_fetches() - before;
    assert!((1..=3).contains(&caused), "{caused} fetches");
    fixture
        .verify(&issuer.good("read:energy"))
        .await
        .expect("good tokens pass all the while");
    let refused = fixture.metrics.render();
    assert!(
        refused.contains("test_issuer_refetches_refused_total{issuer="),
        "{refused}"
    );
}

#[tokio::test]
async fn an_issuer_that_is_down_at_the_start_is_found_when_it_comes() {
    let mut issuer = TestIssuer::stopped().await.unwrap();
    let fixture = start_with(&[&issuer], pace());
    let token = issuer.good("read:energy");
    assert_eq!(fixture.verify(&token).await, Err(AuthError::Unavailable));
    assert_eq!(fixture.health.failing(), ["issuer"]);
    issuer.restart().await.unwrap();
    fixture.ready().await;
    fixture
        .verify(&token)
        .await
        .expect("the token passes once the keys are there");
}

#[tokio::test]
async fn keys_are_kept_through_an_outage() {
    let (mut issuer, fixture) = started().await;
    issuer.stop().await;
    let unknown = TokenSpec {
        key_id: KeyId::Text("unknown".into()),
        ..TokenSpec::default()
    };
    assert_eq!(fixture.verify(&issuer.token(unknown)).await, Err(AuthError::Key));
    fixture
        .verify(&issuer.good("read:energy"))
        .await
        .expect("the keys are kept");
    assert!(
        fixture.health.failing().is_empty(),
        "an outage of the issuer does not take the service out"
    );
}

#[tokio::test]
async fn nonsense_in_place_of_keys_does_not_replace_them() {
    let (issuer, fixture) = started().await;
    let unknown = TokenSpec {
        key_id: KeyId::Text("unknown".into()),
        ..TokenSpec::default()
    };
    for nonsense in [json!({"keys": []}), json!({"keys": "none"}), json!([])] {
        issuer.replace_key_set(Some(nonsense.clone()));
        let fetches = issuer.key_fetches();
        assert_eq!(
            fixture.verify(&issuer.token(unknown.clone())).await,
            Err(AuthError::Key)
        );
        assert!(issuer.key_fetches() > fetches, "{nonsense} was fetched");
        fixture
            .verify(&issuer.good("read:energy"))
            .await
            .unwrap_or_else(|e| panic!("{nonsense}: {e}"));
    }
}

#[tokio::test]
async fn a_rotation_is_seen_at_once_and_the_old_keys_end() {
    let (issuer, fixture) = started().await;
    let old = issuer.good("read:energy");
    issuer.rotate();
    fixture
        .verify(&issuer.good("read:energy"))
        .await
        .expect("the new key is fetched");
    assert_eq!(fixture.verify(&old).await, Err(AuthError::Key));
    let foreign = TokenSpec {
        defect: Some(Defect::ForeignKey),
        ..TokenSpec::default()
    };
    assert_eq!(
        fixture.verify(&issuer.token(foreign)).await,
        Err(AuthError::Signature)
    );
}

#[tokio::test]
async fn keys_are_refreshed_without_being_asked() {
    let issuer = TestIssuer::start().await.unwrap();
    let fixture = start_with(
        &[&issuer],
        Pace {
            refresh: Duration::from_millis(50),
            ..pace()
        },
    );
    fixture.ready().await;
    let old = issuer.good("read:energy");
    fixture.verify(&old).await.expect("the key is known");
    issuer.rotate();
    until("the withdrawn key ends", async || {
        fixture.verify(&old).await == Err(AuthError::Key)
    })
    .await;
}

#[tokio::test]
async fn an_address_of_the_keys_makes_discovery_needless() {
    let issuer = TestIssuer::start().await.unwrap();
    let env = service::Env::of(&[
        ("OIDC_ISSUERS", "https://issuer.example"),
        ("OIDC_AUDIENCES", AUDIENCE),
        ("OIDC_JWKS_URL", &issuer.keys_url()),
    ]);
    let lifecycle = Lifecycle::new();
    let health = Health::new(&lifecycle);
    let settings = AuthSettings::from_env(&env).unwrap();
    let verifier = Verifier::start(settings, &lifecycle, &health, &Metrics::new("test")).unwrap();
    let named = TokenSpec {
        issuer: Some("https://issuer.example".into()),
        ..TokenSpec::default()
    };
    until("the keys are there", async || health.failing().is_empty()).await;
    verifier
        .verify(&issuer.token(named))
        .await
        .expect("the token passes");
    assert_eq!(
        verifier.verify(&issuer.good("read:energy")).await,
        Err(AuthError::Issuer)
    );
    lifecycle.stop();
}

#[tokio::test]
async fn several_issuers_keep_to_their_own_keys() {
    let (home, mut away) = (
        TestIssuer::start().await.unwrap(),
        TestIssuer::stopped().await.unwrap(),
    );
    let fixture = start_with(&[&home, &away], pace());
    fixture.ready().await;
    fixture
        .verify(&home.good("read:energy"))
        .await
        .expect("one issuer that is down does not stop the other");
    assert_eq!(
        fixture.verify(&away.good("read:energy")).await,
        Err(AuthError::Unavailable)
    );
    away.restart().await.unwrap();
    until("the other issuer is found", async || {
        fixture.verify(&away.good("read:energy")).await.is_ok()
    })
    .await;
    // Signed by the second issuer, in the name of the first.
    let forged = TokenSpec {
        issuer: Some(home.url().to_owned()),
        signing: Signing::EdDsa,
        ..TokenSpec::default()
    };
    assert_eq!(
        fixture.verify(&away.token(forged)).await,
        Err(AuthError::Signature)
    );
}

#[derive(Clone)]
struct App(Verifier);

impl FromRef<App> for Verifier {
    fn from_ref(app: &App) -> Self {
        app.0.clone()
    }
}

async fn answer(fixture: &Fixture, headers: &[(&str, &str)], path: &str) -> (u16, String, Value) {
    let router = Router::new()
        .route("/who", get(async |claims: Claims| claims.subject))
        .route(
            "/energy",
            get(async |caller: Scoped<ReadEnergy>| caller.claims.subject),
        )
        .route("/any", get(async |_: Scoped<AnyReading>| "ok"))
        .with_state(App(fixture.verifier.clone()));
    let router = service::http::shell(router, &Metrics::new("test"));
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let challenge = response
        .headers()
        .get("www-authenticate")
        .map_or("", |v| v.to_str().unwrap())
        .to_owned();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
    (
        status,
        challenge,
        serde_json::from_slice(&body).unwrap_or(Value::Null),
    )
}

#[tokio::test]
async fn handlers_run_for_valid_tokens_with_the_scope_only() {
    let (issuer, fixture) = started().await;
    let bearer = |token: String| format!("Bearer {token}");
    let energy = bearer(issuer.good("openid read:energy"));
    let other = bearer(issuer.good("openid read:settings"));
    let expired = bearer(issuer.token(TokenSpec {
        expires_in: Some(-120),
        ..TokenSpec::default()
    }));
    let check = async |headers: &[(&str, &str)], path: &str, status: u16, challenge: &str, detail: &str| {
        let (got, got_challenge, body) = answer(&fixture, headers, path).await;
        assert_eq!(got, status, "{path} {body}");
        assert_eq!(got_challenge, challenge, "{path}");
        assert_eq!(body["detail"].as_str().unwrap_or(""), detail, "{path}");
    };
    let auth = "authorization";
    check(&[(auth, &energy)], "/who", 200, "", "").await;
    check(
        &[(auth, &energy.replace("Bearer", "bEARER"))],
        "/energy",
        200,
        "",
        "",
    )
    .await;
    check(&[(auth, &energy)], "/any", 200, "", "").await;

    let required = "an access token is required";
    check(&[], "/who", 401, "Bearer", required).await;
    check(
        &[(auth, "Basic ZGVtbzpkZW1v")],
        "/energy",
        401,
        "Bearer",
        required,
    )
    .await;
    check(&[(auth, "Bearer ")], "/energy", 401, "Bearer", required).await;
    check(
        &[("x-auth-request-user", "owner"), ("x-forwarded-user", "owner")],
        "/who",
        401,
        "Bearer",
        required,
    )
    .await;
    let invalid = r#"Bearer error="invalid_token""#;
    check(
        &[(auth, &expired)],
        "/energy",
        401,
        invalid,
        "the access token has expired",
    )
    .await;
    check(
        &[(auth, &energy), (auth, &other)],
        "/who",
        401,
        invalid,
        "the access token is malformed",
    )
    .await;
    let insufficient = r#"Bearer error="insufficient_scope""#;
    check(
        &[(auth, &other)],
        "/energy",
        403,
        insufficient,
        "scope read:energy is missing",
    )
    .await;
    let any = "scope read:energy or read:heatpump or read:temperature or read:plugs is missing";
    check(&[(auth, &other)], "/any", 403, insufficient, any).await;
}

#[tokio::test]
async fn without_keys_a_request_is_answered_503_and_told_to_return() {
    let issuer = TestIssuer::stopped().await.unwrap();
    let fixture = start_with(&[&issuer], pace());
    let token = format!("Bearer {}", issuer.good("read:energy"));
    let (status, _, body) = answer(&fixture, &[("authorization", &token)], "/energy").await;
    assert_eq!(
        (status, body["detail"].as_str()),
        (503, Some("the service cannot answer just now"))
    );
}
