//! The house: PostgreSQL with its migrations, an issuer, and the service in this process.

use super::*;

/// Far longer than anything here takes.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub struct House {
    pub postgres: Postgres,
    pub issuer: TestIssuer,
    pub url: String,
    pub admin: String,
    pub client: reqwest::Client,
    pub _lifecycle: Lifecycle,
}

/// A service with a database of its own.
pub async fn house() -> House {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("postgres-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let folder = stack::guardian::run().unwrap().data(&name).unwrap();
    let postgres = Postgres::start(Path::new(&folder)).await.unwrap();
    let issuer = TestIssuer::start().await.unwrap();
    let settings = Settings::from_env(&Env::of(&[
        ("DATABASE_URL", &postgres.url("api", "telemetry")),
        ("OIDC_ISSUERS", issuer.url()),
        ("OIDC_AUDIENCES", stack::issuer::AUDIENCE),
    ]))
    .unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let listeners = Listeners::bind(any, any).await.unwrap();
    let url = format!("http://{}", listeners.public.local_addr().unwrap());
    let admin = format!("http://{}", listeners.admin.local_addr().unwrap());
    let lifecycle = Lifecycle::new();
    run(settings, listeners, &lifecycle).unwrap();
    let client = stack::http::client().unwrap();
    let house = House {
        postgres,
        issuer,
        url,
        admin,
        client,
        _lifecycle: lifecycle,
    };
    house.until_ready(json!({"status": "ok"})).await;
    house
}

/// Runs a test against the shared service.
pub fn with_house<T: Future<Output = ()>>(test: impl FnOnce(&'static House) -> T) {
    static SHARED: OnceLock<(Runtime, House)> = OnceLock::new();
    let (runtime, house) = SHARED.get_or_init(|| {
        let runtime = Runtime::new().unwrap();
        let house = runtime.block_on(house());
        (runtime, house)
    });
    runtime.block_on(test(house));
}

pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl House {
    pub async fn ask(&self, path: &str, token: &str) -> Answer {
        let response = self
            .client
            .get(format!("{}{path}", self.url))
            .bearer_auth(token)
            .send()
            .await
            .unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null);
        Answer {
            status,
            headers,
            body,
        }
    }

    /// The JSON of a good answer, asked for with every scope.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.ask(path, &self.issuer.good(ALL_SCOPES)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    pub async fn sql(&self, statement: &str) {
        self.postgres.psql("telemetry", statement).await.unwrap();
    }

    pub async fn until_ready(&self, want: Value) {
        let begin = Instant::now();
        loop {
            let response = self
                .client
                .get(format!("{}/readyz", self.admin))
                .send()
                .await
                .unwrap();
            let got: Value = response.json().await.unwrap();
            if got == want {
                return;
            }
            assert!(begin.elapsed() < DEADLINE, "readyz is {got}, wanted {want}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A reading every minute of one hour; power 1,000 W, 1,000 Wh in the hour.
pub fn meter_rows(device: &str, start: &str) -> String {
    format!(
        "insert into energy_consumption (device_id, time, id, agent, clock, power_w, power_l1_w, energy_wh)
         select '{device}', timestamptz '{start}' + n * interval '1 minute', '{device}/' || n, 'p0', 'synced',
             1000, 400, 5000 + n * 1000.0 / 60
         from generate_series(0, 60) as n"
    )
}
