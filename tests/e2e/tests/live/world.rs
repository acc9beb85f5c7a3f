//! What the tests stand on: Kafka, an issuer, energy-ws itself, and a client of it.

use super::*;

/// An answer takes milliseconds; a busy two-core machine needs more.
pub const WITHIN: Duration = Duration::from_secs(20);
pub const ORIGIN: &str = "https://house.example";
pub const STREAMS: [(&str, &str); 4] = [
    ("energy", topic::ENERGY),
    ("temperature", topic::TEMPERATURE),
    ("heatpump", topic::HEATPUMP),
    ("plug", topic::PLUG),
];
pub const ALL_SCOPES: &str = "read:energy read:temperature read:heatpump read:plugs";

pub struct World {
    pub runtime: Runtime,
    pub kafka: Kafka,
    pub issuer: TestIssuer,
    pub producer: FutureProducer,
    pub binary: PathBuf,
    shared: OnceLock<Server>,
}

pub fn with_world<T: Future<Output = Result<()>>>(test: impl FnOnce(&'static World) -> T) -> Result<()> {
    static WORLD: OnceLock<std::result::Result<World, String>> = OnceLock::new();
    let world = WORLD.get_or_init(|| World::start().map_err(|error| format!("{error:#}")));
    let world = world
        .as_ref()
        .map_err(|error| anyhow!("the world does not start: {error}"))?;
    world.runtime.block_on(test(world))
}

impl World {
    pub fn start() -> Result<World> {
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
    pub async fn serve(&self, environment: &[(&str, &str)]) -> Result<Server> {
        let server = self.start_server(environment).await?;
        server.part.ready_http(WITHIN, server.admin, "/readyz").await?;
        Ok(server)
    }

    /// A process of its own.
    pub async fn start_server(&self, environment: &[(&str, &str)]) -> Result<Server> {
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

    pub fn server(&self) -> &Server {
        self.shared.get().expect("set when the world starts")
    }

    pub fn token(&self, scopes: &str) -> String {
        self.issuer.good(scopes)
    }

    /// An authenticated client of the shared process.
    pub async fn client(&self, scopes: &str) -> Result<Client> {
        self.server().client(&self.token(scopes)).await
    }

    pub async fn produce(&self, records: &[(&str, String, Vec<u8>)]) -> Result<()> {
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
    pub async fn energy(&self, device: &str, numbers: std::ops::Range<u32>) -> Result<()> {
        let records: Vec<_> = numbers.map(|number| record("energy", device, number)).collect();
        self.produce(&records).await
    }
}

/// A record of a stream with its topic and key.
pub fn record(stream: &str, device: &str, number: u32) -> (&'static str, String, Vec<u8>) {
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

pub fn time(number: u32) -> String {
    let start: DateTime<Utc> = "2026-01-01T08:00:00Z".parse().expect("a time");
    (start + TimeDelta::seconds(number.into())).to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

pub struct Server {
    pub part: Part,
    pub public: SocketAddr,
    pub admin: SocketAddr,
}

impl Server {
    pub fn url(&self) -> String {
        format!("ws://{}/ws/energy", self.public)
    }

    /// Authenticated through the list of protocols.
    pub async fn client(&self, token: &str) -> Result<Client> {
        let protocols = format!("homelab.v1, bearer.{token}");
        let mut client = self
            .connect(&self.url(), &[("sec-websocket-protocol", &protocols)])
            .await?;
        let message = client.next().await?;
        ensure!(message["type"] == "authenticated", "{message}");
        Ok(client)
    }

    pub async fn connect(&self, url: &str, headers: &[(&'static str, &str)]) -> Result<Client> {
        let stream = TcpStream::connect(self.public).await?;
        stream.set_nodelay(true)?;
        Ok(handshake(stream, url, headers).await?)
    }

    pub async fn metric(&self, line: &str) -> Result<f64> {
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

pub async fn handshake(
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

pub struct Client {
    pub socket: WebSocketStream<TcpStream>,
}

impl Client {
    pub async fn say(&mut self, message: Value) -> Result<()> {
        Ok(self.socket.send(Message::text(message.to_string())).await?)
    }

    /// The next message; that the connection ends instead is an error with the close code.
    pub async fn next(&mut self) -> Result<Value> {
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

    /// Reads on to the end, however it comes: the messages before it, and the close code if there was one.
    pub async fn rest(&mut self) -> Result<(Vec<Value>, Option<u16>)> {
        let mut messages = Vec::new();
        loop {
            let received = timeout(WITHIN, self.socket.next())
                .await
                .context("no end in time")?;
            match received {
                Some(Ok(Message::Text(text))) => messages.push(serde_json::from_str(&text)?),
                Some(Ok(Message::Close(frame))) => {
                    return Ok((messages, frame.map(|frame| frame.code.into())));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok((messages, None)),
            }
        }
    }

    /// Reads on to the end: the messages before it, and the close code.
    pub async fn end(&mut self) -> Result<(Vec<Value>, u16)> {
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

    pub async fn subscribe(&mut self, message: Value) -> Result<Value> {
        self.say(message).await?;
        let answer = self.next().await?;
        ensure!(
            answer["type"] == "subscribed" && answer["cursor"].is_string(),
            "{answer}"
        );
        Ok(answer)
    }

    /// Ids of the next `count` records, with the cursor of the last.
    pub async fn ids(&mut self, count: usize) -> Result<(Vec<String>, String)> {
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
    pub async fn silent(&mut self) -> Result<()> {
        self.say(json!({"type": "ping"})).await?;
        let message = self.next().await?;
        ensure!(message == json!({"type": "pong"}), "{message}");
        Ok(())
    }
}

pub fn ids(device: &str, numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("p0/{device}/{number}")).collect()
}
