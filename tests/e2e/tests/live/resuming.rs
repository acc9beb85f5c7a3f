//! Coming back: what a client missed, once and in order, and what is told where that cannot be.

use super::*;

#[test]
fn a_client_that_reconnects_gets_exactly_what_it_missed() -> Result<()> {
    with_world(async |world: &'static World| {
        let server = world.serve(&[]).await?;
        let token = world.token(ALL_SCOPES);
        let (meter, plug, before) = ("live-since-meter", "live-since-plug", "live-since-before");
        let subscribe = |since: &str| json!({"type": "subscribe", "streams": ["energy", "plug"], "devices": [meter, plug, before], "since": since});
        let mut client = server.client(&token).await?;
        let answer = client
            .subscribe(
                json!({"type": "subscribe", "streams": ["energy", "plug"], "devices": [meter, plug, before]}),
            )
            .await?;
        let at_start = answer["cursor"].as_str().context("a cursor")?.to_owned();
        // Received before the cursor, in the other stream: it must never come again.
        let had: Vec<_> = (0..60).map(|number| record("plug", before, number)).collect();
        world.produce(&had).await?;
        client.ids(60).await?;
        world.energy(meter, 0..3).await?;
        let (got, cursor) = client.ids(3).await?;
        ensure!(got == ids(meter, 0..3), "{got:?}");
        let repeated = server.metric("energy_ws_records_repeated_total").await?;
        world.energy(meter, 1..3).await?;
        eventually("the two are read again", WITHIN, async || {
            let now = server.metric("energy_ws_records_repeated_total").await?;
            Ok((now >= repeated + 2.0).then_some(()))
        })
        .await?;
        client.silent().await?;
        drop(client);

        // Missed: more than one step of a replay, of two streams.
        world.energy(meter, 3..303).await?;
        // A killed agent sends again what it cannot know to be delivered; it is not sent to clients again.
        world.energy(meter, 250..303).await?;
        let missed: Vec<_> = (0..50).map(|number| record("plug", plug, number)).collect();
        world.produce(&missed).await?;
        let check = async |server: &Server, cursor: &str, from: u32| {
            let mut client = server.client(&token).await?;
            let answer = client.subscribe(subscribe(cursor)).await?;
            ensure!(
                answer["cursor"] == *cursor,
                "a client that is cut off at once has lost nothing"
            );
            let had = if from == 0 { 60 } else { 0 };
            let (got, last) = client.ids(303 - usize::try_from(from)? + 50 + had).await?;
            let of = |device: &str| {
                got.iter()
                    .filter(|id| id.contains(device))
                    .cloned()
                    .collect::<Vec<_>>()
            };
            ensure!(of(meter) == ids(meter, from..303), "{:?}", of(meter));
            ensure!(of(plug) == ids(plug, 0..50), "{:?}", of(plug));
            client.silent().await?;
            Ok((client, last))
        };
        check(&server, &cursor, 3).await?;
        check(&server, &at_start, 0).await?;

        // Cut off in the middle of the replay, it goes on from there.
        let cut_in_the_middle = async |server: &Server| {
            let mut client = server.client(&token).await?;
            client.subscribe(subscribe(&cursor)).await?;
            let (first, middle) = client.ids(200).await?;
            drop(client);
            let mut client = server.client(&token).await?;
            client.subscribe(subscribe(&middle)).await?;
            let (second, _) = client.ids(150).await?;
            client.silent().await?;
            let mut all = [first, second].concat();
            all.sort();
            let mut wanted = [ids(meter, 3..303), ids(plug, 0..50)].concat();
            wanted.sort();
            ensure!(all == wanted, "each once");
            anyhow::Ok(())
        };
        cut_in_the_middle(&server).await?;

        // The same from a process that was killed and started anew, and what comes while and after.
        server.part.kill().await;
        world.energy("live-since-other", 0..5).await?;
        server.part.restart().await?;
        server.part.ready_http(WITHIN, server.admin, "/readyz").await?;
        cut_in_the_middle(&server).await?;
        let (mut client, last) = check(&server, &cursor, 3).await?;
        world.energy(meter, 303..305).await?;
        ensure!(client.ids(2).await?.0 == ids(meter, 303..305));
        drop(client);
        let mut client = server.client(&token).await?;
        client.subscribe(subscribe(&last)).await?;
        ensure!(client.ids(2).await?.0 == ids(meter, 303..305));
        client.silent().await?;

        // The same cursor in another process that has been there all along.
        let mut client = world.server().client(&token).await?;
        client.subscribe(subscribe(&last)).await?;
        ensure!(client.ids(2).await?.0 == ids(meter, 303..305));
        client.silent().await?;
        server.part.stop().await;
        Ok(())
    })
}

#[test]
fn what_is_older_than_the_window_is_a_gap() -> Result<()> {
    with_world(async |world: &'static World| {
        let device = "live-gap";
        let mut client = world.client("read:temperature").await?;
        let subscribe = json!({"type": "subscribe", "streams": ["temperature"], "devices": [device]});
        let answer = client.subscribe(subscribe).await?;
        let cursor = answer["cursor"].clone();
        // One key, one partition: 2,000 of them are kept.
        let records: Vec<_> = (0..2_100)
            .map(|number| record("temperature", device, number))
            .collect();
        world.produce(&records).await?;
        let (got, _) = client.ids(2_100).await?;
        ensure!(got == ids(device, 0..2_100));
        let mut late = world.client("read:temperature").await?;
        late.subscribe(
            json!({"type": "subscribe", "streams": ["temperature"], "devices": [device], "since": cursor}),
        )
        .await?;
        let gap = late.next().await?;
        ensure!(
            gap["type"] == "gap" && gap["stream"] == "temperature" && gap["reason"] == "window",
            "{gap}"
        );
        let times =
            [&gap["from"], &gap["to"]].map(|time| time.as_str().unwrap_or_default().parse::<DateTime<Utc>>());
        let [from, to] = times;
        ensure!(from? <= to?, "{gap}");
        // Other tests have put a few records into the same partition.
        let first = late.next().await?["id"]
            .as_str()
            .and_then(|id| id.rsplit('/').next()?.parse::<u32>().ok());
        let first = first.context("a record of ours")?;
        ensure!((100..150).contains(&first), "{first}");
        let (got, _) = late.ids(2_100 - 1 - first as usize).await?;
        ensure!(got == ids(device, first + 1..2_100), "what is kept follows");
        late.silent().await?;

        late.say(json!({"type": "subscribe", "streams": ["temperature"], "since": "yesterday"}))
            .await?;
        let message = late.next().await?;
        ensure!(message["code"] == "invalid_cursor", "{message}");
        late.silent().await
    })
}

#[test]
fn records_that_come_during_a_replay_are_there_once() -> Result<()> {
    with_world(async |world: &'static World| {
        const BEFORE: u32 = 500;
        const ALL: u32 = 1_500;
        let device = "live-join";
        let mut first = world.client("read:energy").await?;
        let answer = first
            .subscribe(json!({"type": "subscribe", "streams": ["energy"], "devices": [device]}))
            .await?;
        let cursor = answer["cursor"].clone();
        world.energy(device, 0..BEFORE).await?;
        first.ids(BEFORE as usize).await?;
        // Replays begin while records come: what is replayed and what is live meet at another place in each.
        let coming = async {
            for number in BEFORE..ALL {
                world.energy(device, number..number + 1).await?;
            }
            anyhow::Ok(())
        };
        let joining = async {
            for _ in 0..20 {
                let mut client = world.client("read:energy").await?;
                client
                    .subscribe(json!({"type": "subscribe", "streams": ["energy"], "devices": [device], "since": cursor}))
                    .await?;
                let (got, _) = client.ids(BEFORE as usize + 50).await?;
                ensure!(got == ids(device, 0..BEFORE + 50), "each once and in order");
            }
            anyhow::Ok(())
        };
        tokio::try_join!(coming, joining)?;
        Ok(())
    })
}
