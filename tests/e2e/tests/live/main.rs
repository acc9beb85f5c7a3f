//! energy-ws against real Kafka and signed tokens: what is sent, to whom, and how each connection ends.
//!
//! Most tests share one process, as its clients do; those that restart, stop or limit it start one of their own.
//! Here: what it is for. `hostile`: what tries to break it. `contract`: docs/asyncapi.yaml against real messages.

mod contract;
mod hostile;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use serde_json::{Value, json};
use stack::issuer::{AUDIENCE, TestIssuer, TokenSpec};
use stack::kafka::{Choice, Kafka};
use stack::part::{Part, eventually};
use stack::{binaries, guardian, http, port};
use telemetry::topic;
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// An answer takes milliseconds; a busy two-core machine needs more.
const WITHIN: Duration = Duration::from_secs(20);
const ORIGIN: &str = "https://house.example";
const STREAMS: [(&str, &str); 4] = [
    ("energy", topic::ENERGY),
    ("temperature", topic::TEMPERATURE),
    ("heatpump", topic::HEATPUMP),
    ("plug", topic::PLUG),
];
const ALL_SCOPES: &str = "read:energy read:temperature read:heatpump read:plugs";

struct World {
    runtime: Runtime,
    kafka: Kafka,
    issuer: TestIssuer,
    producer: FutureProducer,
    binary: PathBuf,
    shared: OnceLock<Server>,
}

fn with_world<T: Future<Output = Result<()>>>(test: impl FnOnce(&'static World) -> T) -> Result<()> {
    static WORLD: OnceLock<std::result::Result<World, String>> = OnceLock::new();
    let world = WORLD.get_or_init(|| World::start().map_err(|error| format!("{error:#}")));
    let world = world
        .as_ref()
        .map_err(|error| anyhow!("the world does not start: {error}"))?;
    world.runtime.block_on(test(world))
}

impl World {
    fn start() -> Result<World> {
        let runtime = Runtime::new()?;
        let run = guardian::run()?;
        let (kafka, issuer, binary) = runtime.block_on(async {
            let binary = binaries::folder().await?.join("energy-ws");
            let kafka = Kafka::choose(Choice::Real, &run.data("kafka")?).await?;
            kafka.create_topics(&topic::ALL).await?;
            anyhow::Ok((kafka, TestIssuer::start().await?, binary))
        })?;
        let producer = ClientConfig::new()
            .set("bootstrap.servers", kafka.bootstrap())
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "0")
            .create()?;
        let world = World {
            runtime,
            kafka,
            issuer,
            producer,
            binary,
            shared: OnceLock::new(),
        };
        let server = world.runtime.block_on(world.serve(&[]))?;
        ensure!(world.shared.set(server).is_ok(), "set once");
        Ok(world)
    }

    /// A process of its own, ready.
    async fn serve(&self, environment: &[(&str, &str)]) -> Result<Server> {
        let server = self.start_server(environment).await?;
        server.part.ready_http(WITHIN, server.admin, "/readyz").await?;
        Ok(server)
    }

    /// A process of its own.
    async fn start_server(&self, environment: &[(&str, &str)]) -> Result<Server> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (public, admin) = (port::free()?, port::free()?);
        let mut command = Command::new(&self.binary);
        command
            .env("KAFKA_BOOTSTRAP", self.kafka.bootstrap())
            .env("OIDC_ISSUERS", self.issuer.url())
            .env("OIDC_AUDIENCES", AUDIENCE)
            .env("ALLOWED_ORIGINS", ORIGIN)
            .env("LISTEN_ADDRESS", public.to_string())
            .env("METRICS_ADDRESS", admin.to_string())
            // The most talkative, so that a token in a log is found.
            .env("LOG_LEVEL", "debug")
            .envs(environment.iter().copied());
        let name = format!("energy-ws-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Ok(Server {
            part: Part::start(name, command).await?,
            public,
            admin,
        })
    }

    fn server(&self) -> &Server {
        self.shared.get().expect("set when the world starts")
    }

    fn token(&self, scopes: &str) -> String {
        self.issuer.good(scopes)
    }

    /// An authenticated client of the shared process.
    async fn client(&self, scopes: &str) -> Result<Client> {
        self.server().client(&self.token(scopes)).await
    }

    async fn produce(&self, records: &[(&str, String, Vec<u8>)]) -> Result<()> {
        let mut under_way: FuturesUnordered<_> = records
            .iter()
            .map(|(topic, key, value)| {
                self.producer
                    .send(FutureRecord::to(topic).key(key).payload(value), Timeout::Never)
            })
            .collect();
        while let Some(outcome) = under_way.next().await {
            outcome.map_err(|(error, _)| error)?;
        }
        Ok(())
    }

    /// Sends energy records `numbers` of a device; the number is in the id and is the power.
    async fn energy(&self, device: &str, numbers: std::ops::Range<u32>) -> Result<()> {
        let records: Vec<_> = numbers.map(|number| record("energy", device, number)).collect();
        self.produce(&records).await
    }
}

/// A record of a stream with its topic and key.
fn record(stream: &str, device: &str, number: u32) -> (&'static str, String, Vec<u8>) {
    let (_, topic) = STREAMS
        .iter()
        .find(|(name, _)| *name == stream)
        .expect("a stream of readings");
    let field = match stream {
        "energy" | "plug" => "power_w",
        "temperature" => "uptime_seconds",
        _ => "compressor_hours",
    };
    let record = json!({"id": format!("p0/{device}/{number}"), "agent": "p0", "device_id": device, "time": time(number),
        "clock": "synced", "kind": stream, "reading": {field: number}});
    (topic, device.to_owned(), record.to_string().into_bytes())
}

fn time(number: u32) -> String {
    let start: DateTime<Utc> = "2026-01-01T08:00:00Z".parse().expect("a time");
    (start + TimeDelta::seconds(number.into())).to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

struct Server {
    part: Part,
    public: SocketAddr,
    admin: SocketAddr,
}

impl Server {
    fn url(&self) -> String {
        format!("ws://{}/ws/energy", self.public)
    }

    /// Authenticated through the list of protocols.
    async fn client(&self, token: &str) -> Result<Client> {
        let protocols = format!("homelab.v1, bearer.{token}");
        let mut client = self
            .connect(&self.url(), &[("sec-websocket-protocol", &protocols)])
            .await?;
        let message = client.next().await?;
        ensure!(message["type"] == "authenticated", "{message}");
        Ok(client)
    }

    async fn connect(&self, url: &str, headers: &[(&'static str, &str)]) -> Result<Client> {
        let stream = TcpStream::connect(self.public).await?;
        stream.set_nodelay(true)?;
        Ok(handshake(stream, url, headers).await?)
    }

    async fn metric(&self, line: &str) -> Result<f64> {
        let text = http::client()?
            .get(format!("http://{}/metrics", self.admin))
            .send()
            .await?
            .text()
            .await?;
        let found = text
            .lines()
            .find_map(|candidate| candidate.strip_prefix(line)?.strip_prefix(' '));
        Ok(found.with_context(|| format!("no {line} in\n{text}"))?.parse()?)
    }
}

async fn handshake(
    stream: TcpStream,
    url: &str,
    headers: &[(&'static str, &str)],
) -> std::result::Result<Client, tungstenite::Error> {
    let mut request = url.into_client_request()?;
    for (name, value) in headers {
        request
            .headers_mut()
            .insert(*name, value.parse().expect("a header value"));
    }
    let (socket, _) = client_async(request, stream).await?;
    Ok(Client { socket })
}

struct Client {
    socket: WebSocketStream<TcpStream>,
}

impl Client {
    async fn say(&mut self, message: Value) -> Result<()> {
        Ok(self.socket.send(Message::text(message.to_string())).await?)
    }

    /// The next message; that the connection ends instead is an error with the close code.
    async fn next(&mut self) -> Result<Value> {
        loop {
            let received = timeout(WITHIN, self.socket.next())
                .await
                .context("no message in time")?;
            match received.context("the connection ended")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Close(frame) => bail!("closed with {frame:?}"),
                _ => {}
            }
        }
    }

    /// Reads on to the end: the messages before it, and the close code.
    async fn end(&mut self) -> Result<(Vec<Value>, u16)> {
        let mut messages = Vec::new();
        loop {
            let received = timeout(WITHIN, self.socket.next())
                .await
                .context("no end in time")?;
            match received.context("ended without a close")?? {
                Message::Text(text) => messages.push(serde_json::from_str(&text)?),
                Message::Close(frame) => {
                    return Ok((messages, frame.context("a close without a code")?.code.into()));
                }
                _ => {}
            }
        }
    }

    async fn subscribe(&mut self, message: Value) -> Result<Value> {
        self.say(message).await?;
        let answer = self.next().await?;
        ensure!(
            answer["type"] == "subscribed" && answer["cursor"].is_string(),
            "{answer}"
        );
        Ok(answer)
    }

    /// Ids of the next `count` records, with the cursor of the last.
    async fn ids(&mut self, count: usize) -> Result<(Vec<String>, String)> {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        for _ in 0..count {
            let message = self.next().await?;
            ensure!(message["type"] == "data", "{message}");
            ids.push(message["id"].as_str().context("an id")?.to_owned());
            message["cursor"]
                .as_str()
                .context("a cursor")?
                .clone_into(&mut cursor);
        }
        Ok((ids, cursor))
    }

    /// Shows that nothing else was sent: the next message is the answer to a ping.
    async fn silent(&mut self) -> Result<()> {
        self.say(json!({"type": "ping"})).await?;
        let message = self.next().await?;
        ensure!(message == json!({"type": "pong"}), "{message}");
        Ok(())
    }
}

fn ids(device: &str, numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("p0/{device}/{number}")).collect()
}

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
            let begin = Instant::now();
            world.produce(&[sent]).await?;
            let message = client.next().await?;
            ensure!(
                begin.elapsed() < Duration::from_secs(2),
                "{stream} took {:?}",
                begin.elapsed()
            );
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
        for scope in ["", "openid", "write:plugs", "read:settings"] {
            let mut client = world.client(scope).await?;
            client.say(all.clone()).await?;
            ensure!(client.end().await?.1 == 4403, "{scope}");
        }
        Ok(())
    })
}

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
                expires_in: Some(3),
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

        let begin = Instant::now();
        ensure!(left.end().await?.1 == 4401);
        ensure!(
            begin.elapsed() < Duration::from_secs(4),
            "it ended after {:?}",
            begin.elapsed()
        );
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
        drop(client);

        // Missed: more than one step of a replay, of two streams.
        world.energy(meter, 3..303).await?;
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
        ensure!(
            waited > Duration::from_secs(4) && waited < Duration::from_secs(8),
            "{waited:?}"
        );
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
        let mut client = world.client("read:energy").await?;
        let _cut_off = client.socket.send(Message::binary(vec![0; 10_000_000])).await;
        if let Ok((_, code)) = client.end().await {
            ensure!(code == 1009, "{code}");
        }

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
        let begin = Instant::now();
        let (produced, received) = tokio::join!(world.produce(&records), fast.ids(RECORDS as usize));
        produced?;
        ensure!(
            received?.0 == ids(device, 0..RECORDS),
            "the fast client has all of them"
        );
        ensure!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());

        let (messages, code) = slow.end().await?;
        ensure!(code == 1013, "{code}");
        let got: Vec<_> = messages
            .iter()
            .filter_map(|message| message["id"].as_str().map(str::to_owned))
            .collect();
        let count = u32::try_from(got.len())?;
        ensure!(
            count < RECORDS && got == ids(device, 0..count),
            "in order, from the first on, not all"
        );
        ensure!(server.metric("energy_ws_closes_total{code=\"1013\"}").await? == 1.0);
        server.part.stop().await;
        Ok(())
    })
}

#[test]
fn many_clients_share_one_reader_and_cost_little() -> Result<()> {
    with_world(async |world: &'static World| {
        // Both ends of each are in this machine's limit of open files, often 1,024 a process.
        const CLIENTS: usize = 400;
        const KILOBYTES_EACH: u64 = 40;
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

        let begin = Instant::now();
        let told = async {
            for client in &mut clients {
                ensure!(client.end().await?.1 == 1001);
            }
            Ok(())
        };
        tokio::join!(server.part.stop(), told).1?;
        let log = tokio::fs::read_to_string(server.part.log()).await?;
        ensure!(log.contains("energy-ws stopped"), "it ended by itself");
        ensure!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
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
