//! Limits, many clients, slow ones, the stop, and wrong settings.

use rustix::process::{Resource, getrlimit, setrlimit};

use super::*;

#[test]
fn broken_limits_end_with_their_codes() -> Result<()> {
    with_world(async |world: &'static World| {
        let check = async |message: Message, code: u16, error: Option<&str>| {
            let mut client = world.client("read:energy").await?;
            client.socket.send(message).await?;
            let (messages, got) = client.end().await?;
            ensure!(got == code, "{got} instead of {code}");
            ensure!(
                messages.first().map(|message| &message["code"]) == error.map(|code| json!(code)).as_ref()
            );
            Ok(())
        };
        check(Message::text("hello"), 1008, Some("malformed")).await?;
        check(Message::text("{\"type\":\"shout\"}"), 1008, Some("malformed")).await?;
        check(Message::text("[".repeat(4_000)), 1008, Some("malformed")).await?;
        check(Message::binary(vec![1, 2, 3]), 1008, None).await?;
        check(Message::text("x".repeat(4_097)), 1009, None).await?;
        check(Message::binary(vec![0; 100_000]), 1009, None).await?;

        let mut client = world.client("read:energy").await?;
        let padded = format!("{{\"type\":\"ping\",\"padding\":\"{}\"}}", "x".repeat(4_000));
        client.socket.send(Message::text(padded)).await?;
        ensure!(client.next().await?["type"] == "pong", "4 KiB are allowed");
        client
            .say(json!({"type": "subscribe", "streams": ["water", "energy"]}))
            .await?;
        ensure!(client.next().await?["code"] == "unknown_stream");
        ensure!(client.next().await?["streams"] == json!(["energy"]));

        // Ten megabytes are neither read nor kept; the writer may not even come to its end.
        let server = world.serve(&[]).await?;
        let mut client = server.client(&world.token("read:energy")).await?;
        let _cut_off = client.socket.send(Message::binary(vec![0; 10_000_000])).await;
        let (_, code) = client.rest().await?;
        ensure!(matches!(code, Some(1009) | None), "{code:?}");
        eventually("it is counted as too large", WITHIN, async || {
            Ok((server.metric("energy_ws_closes_total{code=\"1009\"}").await? == 1.0).then_some(()))
        })
        .await?;
        server.part.stop().await;

        let mut client = world.client("read:energy").await?;
        for _ in 0..1_000 {
            if client
                .say(json!({"type": "subscribe", "streams": ["energy"]}))
                .await
                .is_err()
            {
                break;
            }
        }
        let (messages, code) = client.end().await?;
        ensure!(code == 1008, "{code}");
        ensure!(
            messages
                .iter()
                .filter(|message| message["type"] == "subscribed")
                .count()
                < 300
        );
        world.client("read:energy").await?.silent().await
    })
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_nobody_waits_for_it() -> Result<()> {
    with_world(async |world: &'static World| {
        let server = world.serve(&[]).await?;
        let token = world.token("read:heatpump");
        let protocols = format!("homelab.v1, bearer.{token}");
        // A stream of its own: this many records push others out of the window.
        let device = "live-slow";
        let subscribe = json!({"type": "subscribe", "streams": ["heatpump"], "devices": [device]});
        // A small window makes the kernel hold less for it.
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(8 * 1024)?;
        let stream = socket.connect(server.public).await?;
        let mut slow = handshake(stream, &server.url(), &[("sec-websocket-protocol", &protocols)]).await?;
        slow.next().await?;
        slow.subscribe(subscribe.clone()).await?;
        let mut fast = server.client(&token).await?;
        fast.subscribe(subscribe).await?;

        const RECORDS: u32 = 12_000;
        let records: Vec<_> = (0..RECORDS)
            .map(|number| {
                let (topic, key, value) = record("heatpump", device, number);
                let mut value: Value = serde_json::from_slice(&value).expect("JSON");
                value["location"] = json!("x".repeat(1_500));
                (topic, key, value.to_string().into_bytes())
            })
            .collect();
        // In steps that the fast one can keep up with on a busy machine: the window holds 2,000.
        let mut received = Vec::new();
        for step in records.chunks(1_000) {
            let (produced, ids) = tokio::join!(world.produce(step), fast.ids(step.len()));
            produced?;
            received.extend(ids?.0);
        }
        ensure!(
            received == ids(device, 0..RECORDS),
            "the fast client has all of them while the slow one reads nothing"
        );

        // Where it has read nothing for as long as a message may wait, there is no room for the close frame either.
        let (messages, code) = slow.rest().await?;
        ensure!(matches!(code, Some(1013) | None), "{code:?}");
        let got: Vec<_> = messages
            .iter()
            .filter_map(|message| message["id"].as_str().map(str::to_owned))
            .collect();
        let count = u32::try_from(got.len())?;
        ensure!(
            count < RECORDS && got == ids(device, 0..count),
            "in order, from the first on, not all"
        );
        eventually("it is counted as too slow", WITHIN, async || {
            Ok((server.metric("energy_ws_closes_total{code=\"1013\"}").await? == 1.0).then_some(()))
        })
        .await?;
        server.part.stop().await;
        Ok(())
    })
}

#[test]
fn a_flood_of_one_stream_costs_no_client_of_another_a_record() -> Result<()> {
    with_world(async |world: &'static World| {
        let device = "live-flood";
        let mut client = world.client("read:energy").await?;
        let subscribe = json!({"type": "subscribe", "streams": ["energy"], "devices": [device]});
        client.subscribe(subscribe).await?;
        world.energy(device, 0..1).await?;
        // As when an agent sends what it kept during an outage: more than the ring holds, as fast as Kafka takes it.
        let flood: Vec<_> = (0..9_000)
            .map(|number| record("temperature", device, number))
            .collect();
        world.produce(&flood).await?;
        world.energy(device, 1..3).await?;
        let (got, _) = client.ids(3).await?;
        ensure!(got == ids(device, 0..3), "{got:?}");
        client.silent().await
    })
}

#[test]
fn many_clients_share_one_reader_and_cost_little() -> Result<()> {
    with_world(async |world: &'static World| {
        const CLIENTS: usize = 1_000;
        const KILOBYTES_EACH: u64 = 40;
        // A shell's usual limit is 1,024.
        let mut files = getrlimit(Resource::Nofile);
        files.current = files.maximum;
        setrlimit(Resource::Nofile, files)?;
        let server = world.serve(&[]).await?;
        let token = world.token("read:energy");
        let pid = server.part.pid().await.context("it runs")?;
        let resident = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))
                .context("a resident size")?;
            anyhow::Ok(line.trim().trim_end_matches(" kB").parse::<u64>()?)
        };
        let device = "live-many";
        let subscribe = json!({"type": "subscribe", "streams": ["energy"], "devices": [device]});
        let connect = async || {
            let mut client = server.client(&token).await?;
            client.subscribe(subscribe.clone()).await?;
            anyhow::Ok(client)
        };
        let first = connect().await?;
        let before = resident()?;
        let connecting: FuturesUnordered<_> = (0..CLIENTS).map(|_| connect()).collect();
        let mut clients = connecting
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        clients.push(first);
        let each = resident()?.saturating_sub(before) / CLIENTS as u64;
        ensure!(each < KILOBYTES_EACH, "{each} kB for each idle client");
        world.energy(device, 0..3).await?;
        for client in &mut clients {
            ensure!(client.ids(3).await?.0 == ids(device, 0..3));
            client.silent().await?;
        }
        ensure!(
            server
                .metric("energy_ws_records_total{stream=\"energy\"}")
                .await?
                >= 3.0
        );
        server.part.stop().await;
        eprintln!("{each} kB for each idle client");
        Ok(())
    })
}

#[test]
fn a_stop_tells_clients_to_come_back() -> Result<()> {
    with_world(async |world: &'static World| {
        let server = world.serve(&[("USER_CONNECTIONS", "2")]).await?;
        let token = world.token("read:energy");
        let mut clients = Vec::new();
        for _ in 0..2 {
            clients.push(server.client(&token).await?);
        }
        eventually("two clients", WITHIN, async || {
            Ok((server.metric("energy_ws_clients_count").await? == 2.0).then_some(()))
        })
        .await?;
        let mut third = server
            .connect(&format!("{}?token={token}", server.url()), &[])
            .await?;
        let (messages, code) = third.end().await?;
        ensure!(
            code == 1008 && messages[0]["code"] == "limit",
            "{code} {messages:?}"
        );
        let other = TokenSpec {
            subject: Some("another user".into()),
            ..TokenSpec::default()
        };
        clients.push(server.client(&world.issuer.token(other)).await?);

        let told = async {
            for client in &mut clients {
                ensure!(client.end().await?.1 == 1001);
            }
            Ok(())
        };
        tokio::join!(server.part.stop(), told).1?;
        let log = tokio::fs::read_to_string(server.part.log()).await?;
        ensure!(log.contains("energy-ws stopped"), "it ended by itself");
        Ok(())
    })
}

#[test]
fn wrong_settings_end_it_with_64_and_name_the_variable() -> Result<()> {
    with_world(async |world: &'static World| {
        let good = [
            ("KAFKA_BOOTSTRAP", "127.0.0.1:1"),
            ("OIDC_ISSUERS", "http://127.0.0.1:1"),
            ("OIDC_AUDIENCES", AUDIENCE),
        ];
        for (name, value) in [
            ("KAFKA_BOOTSTRAP", ""),
            ("OIDC_ISSUERS", ""),
            ("OIDC_AUDIENCES", ""),
            ("ALLOWED_ORIGINS", "house.example"),
            ("LISTEN_ADDRESS", "8080"),
            ("USER_CONNECTIONS", "0"),
            ("PING_SECONDS", "0"),
        ] {
            let mut command = Command::new(&world.binary);
            let output = command.env_clear().envs(good).env(name, value).output().await?;
            let log = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.code() == Some(64), "{name}: {:?}", output.status);
            ensure!(log.contains(name), "{name}: {log}");
        }
        Ok(())
    })
}
