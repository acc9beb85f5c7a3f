//! Handlers behind the verification: what a request is answered for its token.

use super::*;

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
