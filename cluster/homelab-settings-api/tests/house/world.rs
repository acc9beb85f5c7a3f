//! The house: Kafka, PostgreSQL with its migrations, an issuer, and the service in this process.

use super::*;

/// Far longer than anything here takes, a broker that recovers from SIGKILL included.
pub const DEADLINE: Duration = Duration::from_secs(90);

pub struct House {
    pub postgres: Postgres,
    pub kafka: Kafka,
    pub issuer: TestIssuer,
    pub url: String,
    pub admin: String,
    pub client: reqwest::Client,
    pub lifecycle: Lifecycle,
}

pub fn settings(postgres: &Postgres, kafka: &Kafka, issuer: &TestIssuer, group: &str) -> Settings {
    Settings::from_env(&Env::of(&[
        ("DATABASE_URL", &postgres.url("settings", "homelab_settings")),
        ("KAFKA_BOOTSTRAP", kafka.bootstrap()),
        ("KAFKA_GROUP", group),
        ("OIDC_ISSUERS", issuer.url()),
        ("OIDC_AUDIENCES", stack::issuer::AUDIENCE),
    ]))
    .unwrap()
}

pub async fn house(group: &str) -> House {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let data = |part: &str| {
        stack::guardian::run()
            .unwrap()
            .data(&format!("{part}-{number}"))
            .unwrap()
    };
    let (postgres, kafka) = (data("postgres"), data("kafka"));
    let (postgres, kafka) = tokio::join!(Postgres::start(&postgres), Kafka::choose(Choice::Real, &kafka));
    let (postgres, kafka) = (postgres.unwrap(), kafka.unwrap());
    kafka.create_topics(&telemetry::topic::ALL).await.unwrap();
    let issuer = TestIssuer::start().await.unwrap();
    let settings = settings(&postgres, &kafka, &issuer, group);
    let any = "127.0.0.1:0".parse().unwrap();
    let listeners = Listeners::bind(any, any).await.unwrap();
    let url = format!("http://{}", listeners.public.local_addr().unwrap());
    let admin = format!("http://{}", listeners.admin.local_addr().unwrap());
    let lifecycle = Lifecycle::new();
    run(settings, listeners, &lifecycle).unwrap();
    let client = stack::http::client().unwrap();
    let house = House {
        postgres,
        kafka,
        issuer,
        url,
        admin,
        client,
        lifecycle,
    };
    house
        .until("ready", async || house.failing().await.is_empty())
        .await;
    house
}

/// Runs a test against the shared service.
pub fn with_house<T: Future<Output = ()>>(test: impl FnOnce(&'static House) -> T) {
    static SHARED: OnceLock<(Runtime, House)> = OnceLock::new();
    let (runtime, house) = SHARED.get_or_init(|| {
        let runtime = Runtime::new().unwrap();
        let house = runtime.block_on(house("shared"));
        (runtime, house)
    });
    runtime.block_on(test(house));
}

impl House {
    pub async fn ask(&self, path: &str, scopes: &str) -> (u16, Value) {
        let request = self
            .client
            .get(format!("{}{path}", self.url))
            .bearer_auth(self.issuer.good(scopes));
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (
            status,
            serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null),
        )
    }

    /// Asks with every scope; the answer's status, headers and body.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> (u16, reqwest::header::HeaderMap, Value) {
        let mut request = self
            .client
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
            .bearer_auth(self.issuer.good(ALL_SCOPES))
            .json(&body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null);
        (status, headers, body)
    }

    /// Lets a heat pump report, and waits until it is known.
    pub async fn knows_pump(&self, device: &str, settings: Value) {
        let (topic, value) = pump(device, &ago(5), "synced", settings);
        self.produce(vec![(topic, device, value)]);
        self.until("the pump is known", async || {
            self.settings_of(device).await["device_id"] == device
        })
        .await;
    }

    /// Another process of the same service, as far as the database can tell.
    pub async fn replica(&self) -> Lifecycle {
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners = Listeners::bind(any, any).await.unwrap();
        let lifecycle = Lifecycle::new();
        let settings = settings(&self.postgres, &self.kafka, &self.issuer, "replica");
        run(settings, listeners, &lifecycle).unwrap();
        lifecycle
    }

    pub async fn settings_of(&self, device: &str) -> Value {
        self.ask(&format!("/api/v1/heatpump/settings/{device}"), "read:settings")
            .await
            .1
    }

    pub async fn plug(&self, plug: &str) -> Value {
        let (_, body) = self.ask("/api/v1/plugs", "read:plugs").await;
        let items = body["items"].as_array().cloned().unwrap_or_default();
        items
            .into_iter()
            .find(|item| item["plug_id"] == plug)
            .unwrap_or(Value::Null)
    }

    /// Produces records `(topic, device, payload)` in this order.
    pub fn produce(&self, records: Vec<(&'static str, &str, String)>) {
        let records = records
            .into_iter()
            .map(|(topic, key, value)| (topic, key.to_owned(), value));
        tokio::task::block_in_place(|| self.kafka.produce(records)).unwrap();
    }

    pub async fn failing(&self) -> Vec<String> {
        let response = self
            .client
            .get(format!("{}/readyz", self.admin))
            .send()
            .await
            .unwrap();
        let body: Value = response.json().await.unwrap();
        body["failing"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    pub async fn metric(&self, line: &str) -> f64 {
        let response = self
            .client
            .get(format!("{}/metrics", self.admin))
            .send()
            .await
            .unwrap();
        let text = response.text().await.unwrap();
        let value = text
            .lines()
            .find_map(|l| l.strip_prefix(line))
            .unwrap_or_else(|| panic!("no {line} in\n{text}"));
        value.trim().parse().unwrap()
    }

    pub async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let begin = Instant::now();
        while !condition().await {
            assert!(begin.elapsed() < DEADLINE, "never: {what}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

/// A time so many seconds ago.
pub fn ago(seconds: i64) -> String {
    (Utc::now() - TimeDelta::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub fn record(kind: &str, device: &str, time: &str, clock: &str, reading: Value) -> String {
    json!({"id": format!("p0/1/{time}"), "agent": "p0", "device_id": device, "time": time, "clock": clock, "kind": kind,
        "reading": reading})
    .to_string()
}

pub fn pump(device: &str, time: &str, clock: &str, settings: Value) -> (&'static str, String) {
    let topic = telemetry::topic::HEATPUMP;
    (
        topic,
        record(
            "heatpump",
            device,
            time,
            clock,
            json!({"outdoor_c": 1.0, "settings": settings}),
        ),
    )
}

pub fn switched(device: &str, time: &str, on: bool) -> (&'static str, String) {
    (
        telemetry::topic::PLUG,
        record("plug", device, time, "synced", json!({"on": on})),
    )
}
