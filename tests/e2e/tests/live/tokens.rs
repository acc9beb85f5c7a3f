//! Who a client is: tokens, where they are carried, their end, and pages of strangers.

use super::*;

#[test]
fn bad_tokens_end_with_4401() -> Result<()> {
    with_world(async |world: &'static World| {
        for (name, token) in world.issuer.bad_tokens() {
            // What is not allowed in a header can only come in a message.
            let mut client = world.server().connect(&world.server().url(), &[]).await?;
            client
                .say(json!({"type": "authenticate", "token": token}))
                .await?;
            let (messages, code) = client.end().await.with_context(|| name.to_owned())?;
            if token.len() > 4_000 {
                ensure!(code == 1009, "{name}: {code}");
                continue;
            }
            ensure!(code == 4401, "{name}: {code}");
            ensure!(
                messages.len() == 1 && messages[0]["code"] == "unauthenticated",
                "{name}: {messages:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn a_connection_ends_with_its_token_unless_renewed() -> Result<()> {
    with_world(async |world: &'static World| {
        let short = || {
            let spec = TokenSpec {
                expires_in: Some(10),
                ..TokenSpec::with_scopes("read:energy read:plugs")
            };
            world.issuer.token(spec)
        };
        let (mut left, mut renewed) = (
            world.server().client(&short()).await?,
            world.server().client(&short()).await?,
        );
        renewed
            .subscribe(
                json!({"type": "subscribe", "streams": ["energy", "plug"], "devices": ["live-renewed"]}),
            )
            .await?;
        renewed
            .say(json!({"type": "authenticate", "token": world.token("read:energy")}))
            .await?;
        let message = renewed.next().await?;
        ensure!(message["type"] == "authenticated", "{message}");
        let message = renewed.next().await?;
        ensure!(
            message == json!({"type": "unsubscribed", "streams": ["plug"]}),
            "what it no longer covers: {message}"
        );

        ensure!(left.end().await?.1 == 4401);
        sleep(Duration::from_secs(1)).await;
        world
            .produce(&[
                record("plug", "live-renewed", 0),
                record("energy", "live-renewed", 1),
            ])
            .await?;
        ensure!(
            renewed.ids(1).await?.0 == ids("live-renewed", 1..2),
            "it outlives its first token"
        );

        let spec = TokenSpec {
            subject: Some("somebody else".into()),
            ..TokenSpec::with_scopes("read:energy")
        };
        renewed
            .say(json!({"type": "authenticate", "token": world.issuer.token(spec)}))
            .await?;
        ensure!(
            renewed.end().await?.1 == 4401,
            "a token of another user does not renew"
        );
        Ok(())
    })
}

#[test]
fn the_first_message_may_authenticate() -> Result<()> {
    with_world(async |world: &'static World| {
        let server = world.server();
        let mut client = server.connect(&server.url(), &[]).await?;
        client
            .say(json!({"type": "authenticate", "token": world.token("read:energy")}))
            .await?;
        let message = client.next().await?;
        let expires: DateTime<Utc> = message["expires_at"].as_str().context("a time")?.parse()?;
        ensure!(
            message["type"] == "authenticated" && expires > Utc::now(),
            "{message}"
        );
        client
            .subscribe(json!({"type": "subscribe", "streams": ["energy"]}))
            .await?;

        for first in [
            json!({"type": "subscribe", "streams": ["energy"]}),
            json!({"type": "ping"}),
            json!("hello"),
        ] {
            let mut client = server.connect(&server.url(), &[]).await?;
            client.say(first.clone()).await?;
            let (messages, code) = client.end().await?;
            ensure!(
                code == 4401 && messages[0]["code"] == "unauthenticated",
                "{first}: {code} {messages:?}"
            );
        }
        let begin = Instant::now();
        let mut client = server.connect(&server.url(), &[]).await?;
        ensure!(client.end().await?.1 == 4401);
        let waited = begin.elapsed();
        ensure!(waited > Duration::from_secs(4), "{waited:?}");
        Ok(())
    })
}

#[test]
fn a_token_in_the_query_works_and_no_token_is_logged() -> Result<()> {
    with_world(async |world: &'static World| {
        let server = world.server();
        let token = world.token("read:energy");
        let url = format!("{}?token={token}", server.url());
        let mut client = server.connect(&url, &[]).await?;
        ensure!(client.next().await?["type"] == "authenticated");
        let refused = world.issuer.token(TokenSpec {
            expires_in: Some(-300),
            ..TokenSpec::default()
        });
        let mut client = server
            .connect(&format!("{}?token={refused}", server.url()), &[])
            .await?;
        ensure!(client.end().await?.1 == 4401);
        let mut client = server.client(&token).await?;
        client
            .say(json!({"type": "authenticate", "token": token}))
            .await?;
        client.next().await?;

        let log = tokio::fs::read_to_string(server.part.log()).await?;
        ensure!(!log.is_empty());
        for token in [&token, &refused] {
            for part in token.split('.') {
                ensure!(!log.contains(part), "a part of a token is in the log");
            }
        }
        Ok(())
    })
}

#[test]
fn pages_of_strangers_are_refused() -> Result<()> {
    with_world(async |world: &'static World| {
        let server = world.server();
        let protocols = format!("homelab.v1, bearer.{}", world.token("read:energy"));
        let check = async |origin: Option<&str>| {
            let mut headers = vec![("sec-websocket-protocol", protocols.as_str())];
            headers.extend(origin.map(|origin| ("origin", origin)));
            let stream = TcpStream::connect(server.public).await?;
            match handshake(stream, &server.url(), &headers).await {
                Ok(_) => Ok(101),
                Err(tungstenite::Error::Http(answer)) => Ok(answer.status().as_u16()),
                Err(error) => Err(anyhow!(error)),
            }
        };
        ensure!(check(Some(ORIGIN)).await? == 101);
        ensure!(check(None).await? == 101, "who sends no origin is no browser");
        for origin in [
            "https://evil.example",
            "null",
            "http://house.example",
            "https://house.example.evil.example",
        ] {
            ensure!(check(Some(origin)).await? == 403, "{origin}");
        }
        ensure!(
            check(Some(&format!("http://{}", server.public))).await? == 403,
            "only what is listed"
        );
        let plain = http::client()?
            .get(format!("http://{}/ws/energy", server.public))
            .send()
            .await?;
        ensure!(plain.status().is_client_error(), "{}", plain.status());
        let kind = plain.headers().get("content-type").context("a type")?;
        ensure!(kind == "application/problem+json", "{kind:?}");
        Ok(())
    })
}
