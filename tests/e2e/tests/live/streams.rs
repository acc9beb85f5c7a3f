//! What is sent, and to whom: streams, filters, scopes.

use stack::issuer;

use super::*;

#[test]
fn each_stream_delivers() -> Result<()> {
    with_world(async |world: &'static World| {
        let device = "live-each";
        let mut client = world.client(ALL_SCOPES).await?;
        let answer = client
            .subscribe(json!({"type": "subscribe", "streams": ["energy", "temperature", "heatpump", "plug", "events"],
                "devices": [device]}))
            .await?;
        ensure!(
            answer["streams"] == json!(["energy", "temperature", "heatpump", "plug", "events"]),
            "{answer}"
        );
        for (number, (stream, _)) in (1..).zip(STREAMS) {
            let sent = record(stream, device, number);
            world.produce(&[sent]).await?;
            let message = client.next().await?;
            let reading = &message["data"]["reading"];
            ensure!(
                reading
                    .as_object()
                    .is_some_and(|fields| fields.values().all(|value| *value == f64::from(number)))
            );
            let mut message = message;
            message["data"]["reading"] = json!({});
            message["cursor"] = json!("");
            let wanted = json!({"type": "data", "stream": stream, "timestamp": time(number),
                "id": format!("p0/{device}/{number}"), "cursor": "",
                "data": {"device_id": device, "agent": "p0", "location": null, "clock": "synced", "reading": {}}});
            ensure!(message == wanted, "{message}");
        }
        let event = json!({"id": "p0/live-each/9", "agent": "p0", "device_id": device, "time": time(9),
            "type": "device_online", "online": true});
        world
            .produce(&[(topic::EVENTS, "p0".into(), event.to_string().into_bytes())])
            .await?;
        let message = client.next().await?;
        ensure!(
            message["stream"] == "events" && message["data"] == event,
            "{message}"
        );
        ensure!(
            message["id"] == "p0/live-each/9" && message["timestamp"] == time(9),
            "{message}"
        );

        // What is no record is skipped, and the stream goes on.
        world
            .produce(&[
                (topic::ENERGY, device.into(), b"hello".to_vec()),
                record("energy", device, 5),
            ])
            .await?;
        ensure!(client.ids(1).await?.0 == ids(device, 5..6));

        client
            .say(json!({"type": "unsubscribe", "streams": ["energy"]}))
            .await?;
        let message = client.next().await?;
        ensure!(
            message == json!({"type": "unsubscribed", "streams": ["energy"]}),
            "{message}"
        );
        world
            .produce(&[record("energy", device, 6), record("plug", device, 7)])
            .await?;
        ensure!(
            client.ids(1).await?.0 == ids(device, 7..8),
            "only what is still subscribed"
        );
        client.silent().await
    })
}

#[test]
fn only_the_devices_asked_for() -> Result<()> {
    with_world(async |world: &'static World| {
        let mut client = world.client("read:energy").await?;
        client
            .subscribe(
                json!({"type": "subscribe", "streams": ["energy"], "devices": ["live-dev-a", "live-dev-b"]}),
            )
            .await?;
        for device in ["live-dev-a", "live-dev-c", "live-dev-b"] {
            world.energy(device, 0..1).await?;
        }
        let (mut got, _) = client.ids(2).await?;
        got.sort();
        ensure!(
            got == [&ids("live-dev-a", 0..1)[..], &ids("live-dev-b", 0..1)[..]].concat(),
            "{got:?}"
        );
        client.silent().await
    })
}

#[test]
fn scopes_open_their_own_streams_only() -> Result<()> {
    with_world(async |world: &'static World| {
        let all = json!({"type": "subscribe", "streams": ["energy", "temperature", "heatpump", "plug", "events"],
            "devices": ["nobody"]});
        for (scope, own) in [
            ("read:energy", "energy"),
            ("read:temperature", "temperature"),
            ("read:heatpump", "heatpump"),
            ("read:plugs", "plug"),
        ] {
            let mut client = world.client(scope).await?;
            client.say(all.clone()).await?;
            let mut refused = Vec::new();
            let subscribed = loop {
                let message = client.next().await?;
                if message["type"] != "error" {
                    break message;
                }
                ensure!(message["code"] == "forbidden", "{message}");
                refused.push(message["message"].as_str().context("a message")?.to_owned());
            };
            ensure!(
                subscribed["streams"] == json!([own, "events"]),
                "{scope}: {subscribed}"
            );
            ensure!(refused.len() == 3, "{refused:?}");
        }
        let mut client = world.client("read:temperature").await?;
        client
            .say(json!({"type": "subscribe", "streams": ["energy"]}))
            .await?;
        let (messages, code) = client.end().await?;
        ensure!(code == 4403, "{code}");
        let wanted = json!({"type": "error", "code": "forbidden",
            "message": "scope read:energy is missing for stream energy"});
        ensure!(messages == [wanted], "{messages:?}");
        // Each stream by itself with every scope there is, alone, with none, and with all.
        let every: Vec<&str> = issuer::ALL_SCOPES.split(' ').collect();
        let alone = every.iter().map(|&scope| (scope, vec![scope]));
        let rows = alone.chain([
            ("", vec![]),
            ("openid", vec![]),
            (issuer::ALL_SCOPES, every.clone()),
        ]);
        for (scopes, held) in rows {
            for (stream, opened_by) in [
                ("energy", &["read:energy"][..]),
                ("temperature", &["read:temperature"]),
                ("heatpump", &["read:heatpump"]),
                ("plug", &["read:plugs"]),
                (
                    "events",
                    &["read:energy", "read:temperature", "read:heatpump", "read:plugs"],
                ),
            ] {
                let mut client = world.client(scopes).await?;
                client
                    .say(json!({"type": "subscribe", "streams": [stream], "devices": ["nobody"]}))
                    .await?;
                if held.iter().any(|scope| opened_by.contains(scope)) {
                    let answer = client.next().await?;
                    ensure!(
                        answer["type"] == "subscribed",
                        "{stream} with {scopes:?}: {answer}"
                    );
                } else {
                    ensure!(client.end().await?.1 == 4403, "{stream} with {scopes:?}");
                }
            }
        }
        let server = world.server();
        let mut nobody = server.connect(&server.url(), &[]).await?;
        nobody
            .say(json!({"type": "subscribe", "streams": ["energy"]}))
            .await?;
        ensure!(nobody.end().await?.1 == 4401, "without a token");
        Ok(())
    })
}

#[test]
fn events_of_a_device_are_for_those_who_may_read_what_it_measures() -> Result<()> {
    with_world(async |world: &'static World| {
        let (sensor, plug, unheard) = ("live-seen-sensor", "live-seen-plug", "live-seen-nothing");
        let online = |device: &str| {
            let event = json!({"id": format!("p0/{device}/online"), "agent": "p0", "device_id": device, "time": time(0),
                "type": "device_online", "online": true});
            (topic::EVENTS, device.to_owned(), event.to_string().into_bytes())
        };
        let subscribe = json!({"type": "subscribe", "streams": ["temperature", "plug", "events"], "devices": [sensor, plug, unheard]});
        let mut everything = world.client(issuer::ALL_SCOPES).await?;
        everything.subscribe(subscribe.clone()).await?;
        world
            .produce(&[record("temperature", sensor, 1), record("plug", plug, 1)])
            .await?;
        everything.ids(2).await?;
        let mut warm = world.client("read:temperature").await?;
        warm.subscribe(
            json!({"type": "subscribe", "streams": ["events"], "devices": [sensor, plug, unheard]}),
        )
        .await?;
        world
            .produce(&[online(plug), online(unheard), online(sensor)])
            .await?;
        let (all, _) = everything.ids(3).await?;
        ensure!(all.len() == 3, "all scopes, all events: {all:?}");
        let (own, _) = warm.ids(1).await?;
        ensure!(own == [format!("p0/{sensor}/online")], "{own:?}");
        warm.silent().await
    })
}

#[test]
fn another_filter_loses_nothing_that_is_on_its_way() -> Result<()> {
    with_world(async |world: &'static World| {
        const RECORDS: u32 = 2_000;
        let device = "live-again";
        let mut client = world.client("read:energy").await?;
        let subscribe = json!({"type": "subscribe", "streams": ["energy"], "devices": [device]});
        client.subscribe(subscribe.clone()).await?;
        world.energy(device, 0..RECORDS).await?;
        // While they come, the client asks again some twenty times.
        let mut got = Vec::new();
        for step in 0..20 {
            client.say(subscribe.clone()).await?;
            while got.len() < (step + 1) * RECORDS as usize / 20 {
                let message = client.next().await?;
                match message["type"].as_str() {
                    Some("data") => got.push(message["id"].as_str().context("an id")?.to_owned()),
                    Some("subscribed") => {}
                    _ => bail!("{message}"),
                }
            }
        }
        ensure!(got == ids(device, 0..RECORDS), "each once and in order");
        Ok(())
    })
}
