//! The token table on every service, over real sockets: what is signed rightly passes, whatever is wrong does not.
//!
//! The tokens are of the tests' own issuer, which can make bad ones; the services trust it beside the OpenID provider.
//! The verifier's own tests are in `cluster/service/tests/tokens.rs`.

mod edges;
mod outages;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::{WITHIN, with_stack};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use stack::Stack;
use stack::issuer::{KeyId, Scopes, Signing, TokenSpec};
use stack::part::eventually;
use tokio::sync::RwLock;
use tokio::time::timeout;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// Tests that use the issuer's keys read it, the one that changes them writes: a token must not lose its key half-way.
static KEYS: RwLock<()> = RwLock::const_new(());

/// Headers that a proxy sets for those it has let in; to a service they say nothing.
const PROXY_HEADERS: [(&str, &str); 5] = [
    ("x-auth-request-user", "owner"),
    ("x-auth-request-email", "owner@example.com"),
    ("x-forwarded-user", "owner"),
    ("x-authentik-username", "owner"),
    ("x-forwarded-access-token", "owner"),
];

/// One path a scope of every service that answers HTTP.
fn paths(stack: &Stack) -> [(String, &'static str); 6] {
    let (api, settings) = (stack.api_url(), stack.settings_url());
    [
        (format!("{api}/api/v1/energy/latest"), "read:energy"),
        (format!("{api}/api/v1/temperature/all-latest"), "read:temperature"),
        (format!("{api}/api/v1/heatpump/latest"), "read:heatpump"),
        (format!("{api}/api/v1/plugs/plug/history"), "read:plugs"),
        (format!("{settings}/api/v1/heatpump/settings"), "read:settings"),
        (format!("{settings}/api/v1/plugs"), "read:plugs"),
    ]
}

/// Status, challenge and body of one request.
async fn ask(url: &str, headers: &[(&str, &str)]) -> Result<(u16, String, Value)> {
    let mut request = stack::http::client()?.get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.with_context(|| format!("GET {url}"))?;
    let status = answer.status().as_u16();
    let challenge = answer
        .headers()
        .get("www-authenticate")
        .and_then(|v| v.to_str().ok())
        .unwrap_or("")
        .to_owned();
    Ok((
        status,
        challenge,
        serde_json::from_slice(&answer.bytes().await?).unwrap_or(Value::Null),
    ))
}

async fn status(url: &str, token: &str) -> Result<u16> {
    Ok(ask(url, &[("authorization", &format!("Bearer {token}"))])
        .await?
        .0)
}

/// Where a WebSocket client puts its token.
#[derive(Clone, Copy, Debug)]
enum Place {
    Protocol,
    FirstMessage,
    Query,
    Nowhere,
}

/// What energy-ws makes of a token: the first message's type, or the close code.
async fn live(stack: &Stack, place: Place, token: &str, headers: &[(&'static str, &str)]) -> Result<String> {
    let url = match place {
        Place::Query => format!("{}?token={token}", stack.ws_url()),
        _ => stack.ws_url(),
    };
    let mut request = url.into_client_request()?;
    if let Place::Protocol = place {
        request.headers_mut().insert(
            "sec-websocket-protocol",
            format!("homelab.v1, bearer.{token}").parse()?,
        );
    }
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse()?);
    }
    let (mut socket, _) = connect_async(request)
        .await
        .context("energy-ws refuses the handshake")?;
    if let Place::FirstMessage = place {
        socket
            .send(Message::text(
                json!({"type": "authenticate", "token": token}).to_string(),
            ))
            .await?;
    }
    let outcome = async {
        loop {
            match socket
                .next()
                .await
                .context("the connection ended without a close frame")??
            {
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text)?;
                    // An error that says why comes before the close code that counts.
                    if message["type"] != "error" {
                        return Ok(message["type"].as_str().unwrap_or_default().to_owned());
                    }
                }
                Message::Close(Some(frame)) => return Ok(u16::from(frame.code).to_string()),
                Message::Close(None) => bail!("closed without a code"),
                _ => {}
            }
        }
    };
    timeout(WITHIN, outcome).await.context("energy-ws says nothing")?
}

#[test]
fn good_tokens_pass_on_every_service() -> Result<()> {
    with_stack(async |stack| {
        let _keys = KEYS.read().await;
        let issuer = stack.test_issuer()?;
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
                "without key id",
                TokenSpec {
                    key_id: KeyId::Absent,
                    ..spec()
                },
            ),
            (
                "scp",
                TokenSpec {
                    scopes: Scopes::ScpArray(vec!["read:energy".into()]),
                    ..spec()
                },
            ),
        ] {
            let token = issuer.token(spec);
            let url = format!("{}/api/v1/energy/latest", stack.api_url());
            ensure!(status(&url, &token).await? == 200, "{name} at homelab-api");
            for place in [Place::Protocol, Place::FirstMessage, Place::Query] {
                let outcome = live(stack, place, &token, &[]).await?;
                ensure!(
                    outcome == "authenticated",
                    "{name}, {place:?}: energy-ws answers {outcome}"
                );
            }
        }
        // The settings API with the provider's own token: both issuers are believed.
        let token = stack.token(&["read:plugs"]).await?;
        ensure!(status(&format!("{}/api/v1/plugs", stack.settings_url()), &token).await? == 200);
        Ok(())
    })
}

#[test]
fn bad_tokens_fail_on_every_http_service() -> Result<()> {
    with_stack(async |stack| {
        let _keys = KEYS.read().await;
        for (name, token) in stack.test_issuer()?.bad_tokens() {
            for (url, _) in paths(stack) {
                let (status, challenge, body) =
                    ask(&url, &[("authorization", &format!("Bearer {token}"))]).await?;
                ensure!(status == 401, "a token {name} at {url}: {status} {body}");
                ensure!(
                    challenge == r#"Bearer error="invalid_token""#,
                    "a token {name} at {url}: {challenge:?}"
                );
                ensure!(
                    body["status"] == 401 && body["title"] == "Unauthorized",
                    "a token {name} at {url}: {body}"
                );
                ensure!(
                    !body.to_string().contains(&token),
                    "a token {name} at {url} is repeated"
                );
            }
        }
        Ok(())
    })
}

#[test]
fn bad_tokens_fail_on_energy_ws() -> Result<()> {
    with_stack(async |stack| {
        let _keys = KEYS.read().await;
        for (name, token) in stack.test_issuer()?.bad_tokens() {
            // A frame or an address of 20 kB is refused for its length; that is another table's business.
            let places: &[Place] = if name == "too long" {
                &[Place::Protocol]
            } else {
                &[Place::Protocol, Place::FirstMessage, Place::Query]
            };
            for place in places {
                let outcome = live(stack, *place, &token, &[]).await?;
                ensure!(
                    outcome == "4401",
                    "a token {name}, {place:?}: energy-ws answers {outcome}"
                );
            }
        }
        Ok(())
    })
}

#[test]
fn nobody_is_somebody_because_a_header_says_so() -> Result<()> {
    with_stack(async |stack| {
        for (url, _) in paths(stack) {
            for headers in [
                &[][..],
                &PROXY_HEADERS[..],
                &[("authorization", "Basic b3duZXI6b3duZXI=")],
            ] {
                let (status, challenge, body) = ask(&url, headers).await?;
                ensure!(
                    status == 401 && challenge == "Bearer",
                    "{url} {headers:?}: {status} {challenge} {body}"
                );
            }
        }
        let outcome = live(stack, Place::Nowhere, "", &PROXY_HEADERS).await?;
        ensure!(outcome == "4401", "energy-ws answers {outcome}");
        Ok(())
    })
}

#[test]
fn a_missing_scope_is_named() -> Result<()> {
    with_stack(async |stack| {
        let _keys = KEYS.read().await;
        let issuer = stack.test_issuer()?;
        let all: Vec<_> = paths(stack).into_iter().map(|(_, scope)| scope).collect();
        for (url, scope) in paths(stack) {
            let others: Vec<_> = all.iter().copied().filter(|other| *other != scope).collect();
            let token = format!("Bearer {}", issuer.good(&others.join(" ")));
            let (status, challenge, body) = ask(&url, &[("authorization", &token)]).await?;
            ensure!(status == 403, "{url}: {status} {body}");
            ensure!(
                challenge == r#"Bearer error="insufficient_scope""#,
                "{url}: {challenge}"
            );
            ensure!(
                body["detail"] == format!("scope {scope} is missing"),
                "{url}: {body}"
            );
            ensure!(
                self::status(&url, &issuer.good(scope)).await? == 200,
                "{url} with {scope} alone"
            );
        }
        let mut live = stack::live::Live::connect(&stack.ws_url(), &issuer.good("read:temperature")).await?;
        let refused = live
            .subscribe(&["energy"])
            .await
            .err()
            .context("subscribed without the scope")?
            .to_string();
        ensure!(
            refused.contains("read:energy") || refused.contains("4403"),
            "energy-ws answers {refused}"
        );
        Ok(())
    })
}

#[test]
fn new_keys_are_found_and_old_ones_end() -> Result<()> {
    with_stack(async |stack| {
        let _keys = KEYS.write().await;
        let issuer = stack.test_issuer()?;
        let old = issuer.good(stack::issuer::ALL_SCOPES);
        let urls: Vec<_> = paths(stack).into_iter().map(|(url, _)| url).collect();
        for url in &urls {
            ensure!(status(url, &old).await? == 200, "{url} before the rotation");
        }
        issuer.rotate();
        let new = issuer.good(stack::issuer::ALL_SCOPES);
        // Unknown keys of the other tests may have used up the fetches a service allows itself for the moment.
        for url in &urls {
            eventually(url, WITHIN, async || {
                Ok((status(url, &new).await? == 200).then_some(()))
            })
            .await?;
            ensure!(status(url, &old).await? == 401, "{url} after the rotation");
        }
        eventually("energy-ws takes the new key", WITHIN, async || {
            Ok((live(stack, Place::Protocol, &new, &[]).await? == "authenticated").then_some(()))
        })
        .await?;
        ensure!(
            live(stack, Place::Protocol, &old, &[]).await? == "4401",
            "energy-ws after the rotation"
        );
        Ok(())
    })
}

#[test]
fn a_flood_of_unknown_keys_asks_the_issuer_seldom() -> Result<()> {
    with_stack(async |stack| {
        let _keys = KEYS.write().await;
        let issuer = stack.test_issuer()?;
        let url = format!("{}/api/v1/user/info", stack.api_url());
        let (before, begin) = (issuer.key_fetches(), std::time::Instant::now());
        for batch in 0..10 {
            let unknown = |n| TokenSpec {
                key_id: KeyId::Text(format!("flood-{batch}-{n}")),
                signing: Signing::EdDsa,
                ..TokenSpec::default()
            };
            let tokens: Vec<_> = (0..20).map(|n| issuer.token(unknown(n))).collect();
            let statuses =
                futures_util::future::join_all(tokens.iter().map(|token| status(&url, token))).await;
            for status in statuses {
                ensure!(status? == 401);
            }
        }
        ensure!(
            status(&url, &issuer.good("openid")).await? == 200,
            "good tokens pass after the flood"
        );
        // A burst of three, then one in ten seconds; the other services' own refresh may add one each.
        let allowed = 3 + begin.elapsed().as_secs() / Duration::from_secs(10).as_secs() + 1 + 3;
        let fetches = issuer.key_fetches() - before;
        ensure!(fetches <= allowed, "{fetches} fetches for 200 unknown keys");
        Ok(())
    })
}
