//! Tokens at the edge of what is taken: clocks that are a little apart, algorithms that were swapped, heads of a megabyte.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{WITHIN, with_stack};
use stack::issuer::{Signing, TokenSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{KEYS, Place, live, paths, status};

/// The issuer's clock and a service's may be half a minute apart, in either direction.
#[test]
fn clocks_that_are_a_little_apart_do_no_harm_and_more_does() -> Result<()> {
    with_stack(async |stack| {
        let _keys = KEYS.read().await;
        let issuer = stack.test_issuer()?;
        let spec = TokenSpec::default;
        for (name, spec, good) in [
            (
                "expired 10 s ago",
                TokenSpec {
                    expires_in: Some(-10),
                    ..spec()
                },
                true,
            ),
            (
                "valid in 10 s",
                TokenSpec {
                    valid_in: Some(10),
                    ..spec()
                },
                true,
            ),
            (
                "expired an hour ago",
                TokenSpec {
                    expires_in: Some(-3_600),
                    ..spec()
                },
                false,
            ),
            (
                "valid in an hour",
                TokenSpec {
                    valid_in: Some(3_600),
                    ..spec()
                },
                false,
            ),
        ] {
            // Made anew for each service: seconds pass on a busy machine, and the leeway has only so many.
            for (url, _) in paths(stack) {
                let got = status(&url, &issuer.token(spec.clone())).await?;
                ensure!(
                    got == if good { 200 } else { 401 },
                    "a token {name} at {url}: {got}"
                );
            }
            if name == "expired 10 s ago" {
                // A connection ends with its token, to the second: there is nothing to forgive.
                continue;
            }
            let outcome = live(stack, Place::Protocol, &issuer.token(spec), &[]).await?;
            ensure!(
                outcome == if good { "authenticated" } else { "4401" },
                "a token {name}: energy-ws answers {outcome}"
            );
        }
        Ok(())
    })
}

/// Whoever signs with an algorithm of its own choice: with the public key as a secret, with none, with another hash. The
/// table of bad tokens has them; here it is held to having them.
#[test]
fn swapped_algorithms_are_in_the_table() -> Result<()> {
    with_stack(async |stack| {
        let _keys = KEYS.read().await;
        let names: Vec<_> = stack
            .test_issuer()?
            .bad_tokens()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        for wanted in ["alg none", "alg nOnE", "HS256", "RS512", "PS256"] {
            ensure!(
                names.iter().any(|name| name.starts_with(wanted)),
                "no bad token {wanted} in {names:?}"
            );
        }
        for signing in [Signing::Es256, Signing::EdDsa] {
            let token = stack.test_issuer()?.token(TokenSpec {
                signing,
                ..TokenSpec::default()
            });
            let (_, rest) = token.split_once('.').context("a token has three parts")?;
            // {"alg":"RS256","typ":"JWT"}: the signature is of another kind of key than the head says.
            let swapped = format!("eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.{rest}");
            for (url, _) in paths(stack) {
                ensure!(
                    status(&url, &swapped).await? == 401,
                    "{signing:?} as RS256 at {url}"
                );
            }
        }
        Ok(())
    })
}

/// A head of a megabyte is refused or cut off before it is read, and the next caller is served.
#[test]
fn a_head_of_a_megabyte_is_refused_and_harms_nobody() -> Result<()> {
    with_stack(async |stack| {
        let _keys = KEYS.read().await;
        let good = stack.test_issuer()?.good(stack::issuer::ALL_SCOPES);
        let long = "a".repeat(1024 * 1024);
        for (service, url) in [
            (stack::Service::Api, paths(stack)[0].0.clone()),
            (stack::Service::SettingsApi, paths(stack)[5].0.clone()),
            (stack::Service::Ws, String::new()),
        ] {
            let address = stack.service(service).public();
            let path = match service {
                stack::Service::Ws => "/ws/energy",
                _ => url
                    .split_once(&address.to_string())
                    .map_or(url.as_str(), |(_, path)| path),
            };
            for header in ["authorization: Bearer ", "cookie: session=", "x-forwarded-user: "] {
                let answer = timeout(WITHIN, send(address, path, header, &long))
                    .await
                    .with_context(|| format!("{service:?} keeps a head of a megabyte"))??;
                ensure!(
                    answer.is_empty()
                        || answer.starts_with("HTTP/1.1 431")
                        || answer.starts_with("HTTP/1.1 400"),
                    "{service:?}, {header}: {answer}"
                );
            }
            match service {
                stack::Service::Ws => {
                    ensure!(live(stack, Place::Protocol, &good, &[]).await? == "authenticated");
                }
                _ => ensure!(status(&url, &good).await? == 200, "{url} after it"),
            }
        }
        Ok(())
    })
}

/// The start of what is answered; nothing when the connection was cut.
async fn send(address: std::net::SocketAddr, path: &str, header: &str, long: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{header}{long}\r\n\r\n");
    let (mut reader, mut writer) = stream.split();
    let sending = async {
        // The service may have closed long before all is sent.
        let _ = writer.write_all(head.as_bytes()).await;
    };
    let mut answer = vec![0; 512];
    let reading = async {
        let mut length = 0;
        while length < 16 {
            match reader.read(&mut answer[length..]).await {
                Ok(0) | Err(_) => break,
                Ok(read) => length += read,
            }
        }
        length
    };
    let (length, ()) = tokio::join!(reading, async {
        // Not for ever: a service that answers and does not read on leaves the rest unsent.
        let _ = timeout(Duration::from_secs(10), sending).await;
    });
    answer.truncate(length);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
