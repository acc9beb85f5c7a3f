//! What strangers and bad luck do to energy-ws: crowds, garbage, clients that stall, keys and records that are gone.

use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A shell's usual limit is 1,024 open files; a crowd of that size needs more.
fn allow_open_files() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

#[test]
fn a_thousand_clients_at_once() -> Result<()> {
    with_world(async |world: &'static World| {
        const CLIENTS: usize = 1_000;
        allow_open_files()?;
        let server = world.serve(&[]).await?;
        let device = "live-crowd";
        let token = world.token("read:energy");
        let begin = Instant::now();
        let connecting: FuturesUnordered<_> = (0..CLIENTS)
            .map(async |_| {
                let mut client = server.client(&token).await?;
                client
                    .subscribe(json!({"type": "subscribe", "streams": ["energy"], "devices": [device]}))
                    .await?;
                anyhow::Ok(client)
            })
            .collect();
        let clients = connecting.collect::<Vec<_>>().await;
        let mut clients = clients.into_iter().collect::<Result<Vec<_>>>()?;
        let connected = begin.elapsed();
        ensure!(server.metric("energy_ws_clients_count").await? == CLIENTS as f64);

        world.energy(device, 0..3).await?;
        for client in &mut clients {
            ensure!(client.ids(3).await?.0 == ids(device, 0..3));
        }
        // All come back at once, as after a restart of the proxy, and find their places free again.
        drop(clients);
        eventually("all are gone", WITHIN, async || {
            Ok((server.metric("energy_ws_clients_count").await? == 0.0).then_some(()))
        })
        .await?;
        server.client(&token).await?.silent().await?;
        server.part.stop().await;
        eprintln!("{CLIENTS} clients were connected and subscribed after {connected:?}");
        Ok(())
    })
}

#[test]
fn records_deleted_before_they_were_read_are_a_gap() -> Result<()> {
    with_world(async |world: &'static World| {
        const RECORDS: u32 = 400;
        // The one topic with one partition, and no other test counts on what is kept in it.
        let agent = "live-deleted";
        let event = |number: u32| {
            let event = json!({"id": format!("p0/{agent}/{number}"), "agent": agent, "device_id": agent,
                "time": time(number), "type": "device_online", "online": number.is_multiple_of(2)});
            (topic::EVENTS, agent.to_owned(), event.to_string().into_bytes())
        };
        let server = world.serve(&[]).await?;
        let mut client = world_client(world, &server).await?;
        let subscribe = json!({"type": "subscribe", "streams": ["events"], "devices": [agent]});
        client.subscribe(subscribe.clone()).await?;
        world.produce(&[event(0)]).await?;
        let (got, cursor) = client.ids(1).await?;
        ensure!(got == ids(agent, 0..1), "{got:?}");

        // The process is frozen, as by a machine that swaps; meanwhile the topic's retention goes by.
        server.part.signal(Signal::STOP).await?;
        // What it has already asked for comes in one answer, the rest it would ask for later.
        world.produce(&[event(1)]).await?;
        world
            .produce(&(2..RECORDS).map(event).collect::<Vec<_>>())
            .await?;
        let high = delete_up_to_the_end(world, topic::EVENTS).await?;
        let rest: Vec<_> = (RECORDS..RECORDS + 3).map(event).collect();
        world.produce(&rest).await?;
        server.part.signal(Signal::CONT).await?;

        let mut before = Vec::new();
        let gap = loop {
            let message = client.next().await?;
            if message["type"] == "gap" {
                break message;
            }
            before.push(message["id"].as_str().context("an id")?.to_owned());
        };
        ensure!(
            before == ids(agent, 1..1 + u32::try_from(before.len())?),
            "{before:?}"
        );
        ensure!(before.len() < RECORDS as usize - 1, "nothing was missed");
        ensure!(gap["stream"] == "events" && gap["reason"] == "window", "{gap}");
        let time_of = |field: &str| gap[field].as_str().unwrap_or_default().parse::<DateTime<Utc>>();
        ensure!(time_of("from")? <= time_of("to")?, "{gap}");
        let (got, last) = client.ids(3).await?;
        ensure!(got == ids(agent, RECORDS..RECORDS + 3), "{got:?}");
        client.silent().await?;
        ensure!(server.metric("energy_ws_breaks_total").await? == 1.0);

        // Who comes back from before is told as well, here and in a process that starts only now.
        server.part.restart().await?;
        server.part.ready_http(WITHIN, server.admin, "/readyz").await?;
        let mut back = world_client(world, &server).await?;
        let mut since = subscribe;
        since["since"] = json!(cursor);
        back.subscribe(since.clone()).await?;
        ensure!(back.next().await?["type"] == "gap");
        ensure!(back.ids(3).await?.0 == ids(agent, RECORDS..RECORDS + 3));
        // And who has seen what followed has missed nothing.
        let mut back = world_client(world, &server).await?;
        since["since"] = json!(last);
        back.subscribe(since).await?;
        back.silent().await?;
        ensure!(high > 0);
        server.part.stop().await;
        Ok(())
    })
}

async fn world_client(world: &World, server: &Server) -> Result<Client> {
    server.client(&world.token(ALL_SCOPES)).await
}

/// Deletes every record of a topic with one partition, as its retention would. Answers where it goes on.
async fn delete_up_to_the_end(world: &World, topic: &str) -> Result<i64> {
    use rdkafka::producer::Producer as _;
    let (_, high) =
        tokio::task::block_in_place(|| world.producer.client().fetch_watermarks(topic, 0, WITHIN))?;
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", world.kafka.bootstrap())
        .create()?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, 0, Offset::Offset(high))?;
    admin.delete_records(&offsets, &AdminOptions::new()).await?;
    Ok(high)
}

#[test]
fn keys_that_are_revoked_open_no_new_connection() -> Result<()> {
    with_world(async |world: &'static World| {
        let issuer = TestIssuer::start().await?;
        let server = world.serve(&[("OIDC_ISSUERS", issuer.url())]).await?;
        let spec = |seconds| TokenSpec {
            expires_in: Some(seconds),
            ..TokenSpec::with_scopes("read:energy")
        };
        let (old, short) = (issuer.token(spec(300)), issuer.token(spec(10)));
        let begin = Instant::now();
        let mut running = server.client(&short).await?;
        running
            .subscribe(json!({"type": "subscribe", "streams": ["energy"], "devices": ["live-revoked"]}))
            .await?;
        issuer.rotate();
        // The first token of the new key makes the service fetch the keys; the old one is not among them.
        server.client(&issuer.token(spec(300))).await?.silent().await?;
        let refused = async |token: &str| {
            let protocols = format!("homelab.v1, bearer.{token}");
            let headers = [("sec-websocket-protocol", protocols.as_str())];
            let mut client = server.connect(&server.url(), &headers).await?;
            let (messages, code) = client.end().await?;
            ensure!(
                code == 4401 && messages[0]["code"] == "unauthenticated",
                "{code} {messages:?}"
            );
            anyhow::Ok(())
        };
        refused(&old).await?;
        // Running connections go on to the end of their token, not beyond it.
        world.energy("live-revoked", 0..1).await?;
        ensure!(running.ids(1).await?.0 == ids("live-revoked", 0..1));
        ensure!(running.end().await?.1 == 4401);
        let lived = begin.elapsed();
        ensure!(lived > Duration::from_secs(4), "{lived:?}");
        // Nor does a token of the old key renew one.
        let mut renewed = server.client(&issuer.token(spec(300))).await?;
        renewed.say(json!({"type": "authenticate", "token": old})).await?;
        ensure!(renewed.end().await?.1 == 4401);
        server.part.stop().await;
        Ok(())
    })
}

/// A frame of a client, masked with zeros.
fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short frame");
    [&[first_byte, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

#[test]
fn garbage_instead_of_frames_ends_with_1008() -> Result<()> {
    with_world(async |world: &'static World| {
        let server = world.server();
        let check = async |name: &str, bytes: &[u8]| {
            let mut client = world.client("read:energy").await.context("a client")?;
            let stream = client.socket.get_mut();
            stream.write_all(bytes).await?;
            let (_, code) = client.end().await.with_context(|| name.to_owned())?;
            ensure!(code == 1008, "{name}: {code}");
            anyhow::Ok(())
        };
        check("a reserved opcode", &frame(0x83, b"x")).await?;
        check("a reserved control opcode", &frame(0x8b, b"")).await?;
        check("a reserved bit, as of a compressed message", &frame(0xc1, b"{}")).await?;
        check("not masked", &[0x81, 2, b'{', b'}']).await?;
        check("a control frame in pieces", &frame(0x09, b"x")).await?;
        let too_long = [&[0x89, 0x80 | 126, 0, 126, 0, 0, 0, 0][..], &[0; 126]].concat();
        check("a control frame that is too long", &too_long).await?;
        check("a continuation of nothing", &frame(0x80, b"x")).await?;
        check(
            "a message in a message",
            &[frame(0x01, b"x"), frame(0x01, b"x")].concat(),
        )
        .await?;
        check("not UTF-8", &frame(0x81, &[0xff, 0xfe])).await?;
        check("HTTP", b"GET / HTTP/1.1\r\n\r\n").await?;

        // A length of 2^63 - 1 reserves nothing, pieces count together, and pings are not free.
        let mut client = world.client("read:energy").await?;
        let length = [&[0x81, 0x80 | 127][..], &i64::MAX.to_be_bytes(), &[0; 4]].concat();
        client.socket.get_mut().write_all(&length).await?;
        ensure!(client.end().await?.1 == 1009);
        let mut client = world.client("read:energy").await?;
        let pieces = [frame(0x01, &[b'x'; 100]), frame(0x00, &[b'x'; 100]).repeat(50)].concat();
        let _cut_off = client.socket.get_mut().write_all(&pieces).await;
        ensure!(client.end().await?.1 == 1009);
        let mut client = world.client("read:energy").await?;
        let _cut_off = client
            .socket
            .get_mut()
            .write_all(&frame(0x89, b"").repeat(1_000))
            .await;
        let (messages, code) = client.end().await?;
        ensure!(
            code == 1008 && messages[0]["code"] == "limit",
            "{code} {messages:?}"
        );

        // A message in pieces with a ping between them is a message.
        let mut client = world.client("read:energy").await?;
        let whole = br#"{"type":"ping"}"#;
        let pieces = [
            frame(0x01, &whole[..7]),
            frame(0x89, b""),
            frame(0x80, &whole[7..]),
        ]
        .concat();
        client.socket.get_mut().write_all(&pieces).await?;
        ensure!(client.next().await? == json!({"type": "pong"}));

        // A thousand names that are no streams get one answer.
        let mut client = world.client("read:energy").await?;
        let names = vec!["x"; 990];
        client.say(json!({"type": "subscribe", "streams": names})).await?;
        ensure!(client.next().await?["code"] == "unknown_stream");
        client.silent().await?;

        // A handshake that never comes to its end is nobody's trouble.
        let mut half = TcpStream::connect(server.public).await?;
        half.write_all(b"GET /ws/energy HTTP/1.1\r\nUpgrade: websocket\r\n")
            .await?;
        world.client("read:energy").await?.silent().await
    })
}

#[test]
fn who_does_not_answer_pings_is_gone() -> Result<()> {
    with_world(async |world: &'static World| {
        let server = world.serve(&[("PING_SECONDS", "4")]).await?;
        let token = world.token("read:energy");
        let (mut dead, mut idle) = (server.client(&token).await?, server.client(&token).await?);
        // A client that reads answers pings by itself; the dead one is not read from before its time is over.
        let begin = Instant::now();
        while server.metric("energy_ws_closes_total{code=\"1008\"}").await? == 0.0 {
            ensure!(begin.elapsed() < 2 * WITHIN, "it is still there");
            if let Ok(Some(message)) = timeout(Duration::from_millis(100), idle.socket.next()).await {
                ensure!(message?.is_ping(), "only pings");
            }
        }
        idle.silent().await?;
        ensure!(dead.end().await?.1 == 1008);
        server.part.stop().await;
        Ok(())
    })
}

/// A client whose socket takes next to nothing, with more waiting for it than fits on the way.
async fn stalled(world: &World, server: &Server, token: &str, device: &str) -> Result<Client> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(8 * 1024)?;
    let stream = socket.connect(server.public).await?;
    let protocols = format!("homelab.v1, bearer.{token}");
    let mut client = handshake(stream, &server.url(), &[("sec-websocket-protocol", &protocols)]).await?;
    client.next().await?;
    client
        .subscribe(json!({"type": "subscribe", "streams": ["heatpump"], "devices": [device]}))
        .await?;
    let sent = server.metric("energy_ws_messages_sent_total").await?;
    // Fewer than the ring holds: it is not cut off for being slow, it stands in the middle of a message.
    let records: Vec<_> = (0..3_500)
        .map(|number| {
            let (topic, key, value) = record("heatpump", device, number);
            let mut value: Value = serde_json::from_slice(&value).expect("JSON");
            value["location"] = json!("x".repeat(3_000));
            (topic, key, value.to_string().into_bytes())
        })
        .collect();
    world.produce(&records).await?;
    eventually("the client is stuck", WITHIN, async || {
        let read = server
            .metric("energy_ws_records_total{stream=\"heatpump\"}")
            .await?;
        let stuck = server.metric("energy_ws_messages_sent_total").await? - sent < 3_500.0;
        Ok((read >= 3_500.0 && stuck).then_some(()))
    })
    .await?;
    Ok(client)
}

#[test]
fn a_stalled_client_outlives_neither_its_token_nor_the_process() -> Result<()> {
    with_world(async |world: &'static World| {
        let server = world.serve(&[]).await?;
        let spec = TokenSpec {
            expires_in: Some(8),
            ..TokenSpec::with_scopes("read:heatpump")
        };
        let _expiring = stalled(world, &server, &world.issuer.token(spec), "live-stalled-1").await?;
        eventually("its token ends it", WITHIN, async || {
            Ok((server.metric("energy_ws_closes_total{code=\"4401\"}").await? == 1.0).then_some(()))
        })
        .await?;

        let _stalled = stalled(world, &server, &world.token("read:heatpump"), "live-stalled-2").await?;
        server.part.stop().await;
        let log = tokio::fs::read_to_string(server.part.log()).await?;
        ensure!(log.contains("energy-ws stopped"), "it ended by itself");
        Ok(())
    })
}

#[test]
fn before_kafka_is_reached_clients_are_told_to_come_later() -> Result<()> {
    with_world(async |world: &'static World| {
        let nobody = port::free()?;
        let server = world
            .start_server(&[("KAFKA_BOOTSTRAP", &nobody.to_string())])
            .await?;
        server.part.ready_http(WITHIN, server.admin, "/livez").await?;
        // The issuer's keys take a moment as well; until then the answer is the same.
        let mut client = eventually("the issuer is known", WITHIN, async || {
            Ok(server.client(&world.token("read:energy")).await.ok())
        })
        .await?;
        client
            .say(json!({"type": "subscribe", "streams": ["energy"]}))
            .await?;
        let (messages, code) = client.end().await?;
        ensure!(
            code == 1013 && messages[0]["code"] == "unavailable",
            "{code} {messages:?}"
        );
        ensure!(
            !stack::part::get_is_ok(server.admin, "/readyz").await,
            "it says that it is not ready"
        );
        server.part.stop().await;
        Ok(())
    })
}

#[test]
fn every_stream_opens_to_its_scopes_and_to_nothing_else() -> Result<()> {
    with_world(async |world: &'static World| {
        const SCOPES: [&str; 7] = [
            "read:energy",
            "read:temperature",
            "read:heatpump",
            "read:plugs",
            "read:settings",
            "write:settings",
            "write:plugs",
        ];
        let streams = [
            ("energy", &SCOPES[0..1]),
            ("temperature", &SCOPES[1..2]),
            ("heatpump", &SCOPES[2..3]),
            ("plug", &SCOPES[3..4]),
            ("events", &SCOPES[0..4]),
        ];
        let all = SCOPES.join(" ");
        let near = [
            "",
            "openid",
            "read",
            "read:*",
            "read:energyx",
            "READ:ENERGY",
            "read:plug",
        ];
        for (stream, opening) in streams {
            let subscribe = json!({"type": "subscribe", "streams": [stream], "devices": ["nobody"]});
            for scopes in SCOPES.into_iter().chain(near).chain([all.as_str()]) {
                let mut client = world.client(scopes).await?;
                client.say(subscribe.clone()).await?;
                let message = client.next().await?;
                if scopes == all || opening.contains(&scopes) {
                    ensure!(
                        message["type"] == "subscribed",
                        "{stream} with {scopes}: {message}"
                    );
                } else {
                    ensure!(
                        message["code"] == "forbidden",
                        "{stream} with {scopes}: {message}"
                    );
                    ensure!(client.end().await?.1 == 4403, "{stream} with {scopes}");
                }
            }
            let server = world.server();
            let mut client = server.connect(&server.url(), &[]).await?;
            client.say(subscribe).await?;
            let (messages, code) = client.end().await?;
            ensure!(
                code == 4401 && messages[0]["code"] == "unauthenticated",
                "{stream}: {code}"
            );
        }
        Ok(())
    })
}

#[test]
fn no_token_is_logged_however_much_is() -> Result<()> {
    with_world(async |world: &'static World| {
        let server = world.serve(&[("LOG_LEVEL", "trace")]).await?;
        let token = world.token("read:energy");
        let mut client = server.client(&token).await?;
        client
            .say(json!({"type": "authenticate", "token": token}))
            .await?;
        client.next().await?;
        let mut client = server
            .connect(&format!("{}?token={token}", server.url()), &[])
            .await?;
        client.next().await?;
        // The plain request of somebody who tries the address by hand.
        let mut plain = TcpStream::connect(server.public).await?;
        let request =
            format!("GET /ws/energy?token={token} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        plain.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        plain.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        server.part.stop().await;
        let log = tokio::fs::read_to_string(server.part.log()).await?;
        for part in token.split('.') {
            let line = log.lines().find(|line| line.contains(part)).unwrap_or_default();
            let start = line.chars().take(160).collect::<String>();
            ensure!(line.is_empty(), "a part of a token is in the log: {start}");
        }
        Ok(())
    })
}
