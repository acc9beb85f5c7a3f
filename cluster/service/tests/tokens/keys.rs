//! Keys: which may be meant, how they change, and what happens while the issuer is away or asked for keys that do not exist.

use super::*;

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
