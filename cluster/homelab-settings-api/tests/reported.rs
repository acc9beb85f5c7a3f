//! The settings API against real Kafka, a real PostgreSQL with the real migrations and a real issuer of tokens.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, TimeDelta, Utc};
use homelab_settings_api::{Settings, run};
use serde_json::{Value, json};
use service::server::Listeners;
use service::{Env, Lifecycle};
use stack::issuer::{ALL_SCOPES, TestIssuer};
use stack::kafka::{Choice, Kafka};
use stack::postgres::Postgres;
use tokio::runtime::Runtime;

/// Far longer than anything here takes, a broker that recovers from SIGKILL included.
const DEADLINE: Duration = Duration::from_secs(90);

struct House {
    postgres: Postgres,
    kafka: Kafka,
    issuer: TestIssuer,
    url: String,
    admin: String,
    client: reqwest::Client,
    lifecycle: Lifecycle,
}

async fn house(group: &str) -> House {
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
    let settings = Settings::from_env(&Env::of(&[
        ("DATABASE_URL", &postgres.url("settings", "homelab_settings")),
        ("KAFKA_BOOTSTRAP", kafka.bootstrap()),
        ("KAFKA_GROUP", group),
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
fn with_house<T: Future<Output = ()>>(test: impl FnOnce(&'static House) -> T) {
    static SHARED: OnceLock<(Runtime, House)> = OnceLock::new();
    let (runtime, house) = SHARED.get_or_init(|| {
        let runtime = Runtime::new().unwrap();
        let house = runtime.block_on(house("shared"));
        (runtime, house)
    });
    runtime.block_on(test(house));
}

impl House {
    async fn ask(&self, path: &str, scopes: &str) -> (u16, Value) {
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

    async fn settings_of(&self, device: &str) -> Value {
        self.ask(&format!("/api/v1/heatpump/settings/{device}"), "read:settings")
            .await
            .1
    }

    async fn plug(&self, plug: &str) -> Value {
        let (_, body) = self.ask("/api/v1/plugs", "read:plugs").await;
        let items = body["items"].as_array().cloned().unwrap_or_default();
        items
            .into_iter()
            .find(|item| item["plug_id"] == plug)
            .unwrap_or(Value::Null)
    }

    /// Produces records `(topic, device, payload)` in this order.
    fn produce(&self, records: Vec<(&'static str, &str, String)>) {
        let records = records
            .into_iter()
            .map(|(topic, key, value)| (topic, key.to_owned(), value));
        tokio::task::block_in_place(|| self.kafka.produce(records)).unwrap();
    }

    async fn failing(&self) -> Vec<String> {
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

    async fn metric(&self, line: &str) -> f64 {
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

    async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let begin = Instant::now();
        while !condition().await {
            assert!(begin.elapsed() < DEADLINE, "never: {what}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

/// A time so many seconds ago.
fn ago(seconds: i64) -> String {
    (Utc::now() - TimeDelta::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn record(kind: &str, device: &str, time: &str, clock: &str, reading: Value) -> String {
    json!({"id": format!("p0/1/{time}"), "agent": "p0", "device_id": device, "time": time, "clock": clock, "kind": kind,
        "reading": reading})
    .to_string()
}

fn pump(device: &str, time: &str, clock: &str, settings: Value) -> (&'static str, String) {
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

fn switched(device: &str, time: &str, on: bool) -> (&'static str, String) {
    (
        telemetry::topic::PLUG,
        record("plug", device, time, "synced", json!({"on": on})),
    )
}

#[test]
fn the_newest_report_is_shown_whatever_comes_after_it() {
    with_house(async |house| {
        let newest = ago(10);
        let all = json!({"indoor_target_c": 21, "mode": 1, "curve": 38, "curve_min": 22, "curve_max": 55, "curve_plus_5": 1,
            "curve_zero": 0, "curve_minus_5": -1, "heat_stop_c": 17, "integral": 60});
        let records = [
            pump("ivt-1", &ago(20), "synced", all),
            pump("ivt-1", &newest, "synced", json!({"indoor_target_c": 23})),
            pump("ivt-1", &ago(3_600), "synced", json!({"indoor_target_c": 15})),
            pump("ivt-1", &ago(60), "unsynced", json!({"indoor_target_c": 16})),
            pump("ivt-1", &ago(-7_200), "synced", json!({"indoor_target_c": 17})),
            pump("ivt-1", &ago(-60), "unsynced", json!({"indoor_target_c": 18})),
            pump("ivt-end", &ago(0), "synced", json!({"mode": 4})),
        ];
        // One partition keeps their order, and the last of them says that all were read.
        house.produce(
            records
                .into_iter()
                .map(|(topic, value)| (topic, "ivt-1", value))
                .collect(),
        );
        house
            .until("the last record is read", async || {
                house.settings_of("ivt-end").await["reported"]["mode"] == 4
            })
            .await;
        assert_eq!(
            house.settings_of("ivt-1").await,
            json!({"device_id": "ivt-1", "agent": "p0", "reported_at": newest, "wanted": {},
                "reported": {"indoor_target_c": 23, "mode": 1, "curve": 38, "curve_min": 22, "curve_max": 55,
                    "curve_plus_5": 1, "curve_zero": 0, "curve_minus_5": -1, "heat_stop_c": 17, "integral": 60}})
        );
        let (status, list) = house.ask("/api/v1/heatpump/settings", "read:settings").await;
        let ids: Vec<_> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["device_id"].clone())
            .collect();
        assert!(
            status == 200 && ids.contains(&json!("ivt-1")) && ids.contains(&json!("ivt-end")),
            "{list}"
        );
    });
}

#[test]
fn a_batch_later_the_same_rule_holds() {
    with_house(async |house| {
        let (first, second) = (ago(30), ago(20));
        let send = |(topic, value): (&'static str, String)| house.produce(vec![(topic, "plug-a", value)]);
        send(switched("plug-a", &second, true));
        house
            .until("the plug is on", async || {
                house.plug("plug-a").await["on"] == true
            })
            .await;
        send(switched("plug-a", &first, false));
        send(switched("plug-b", &ago(5), false));
        house
            .until("the later record is read", async || {
                house.plug("plug-b").await["on"] == false
            })
            .await;
        assert_eq!(
            house.plug("plug-a").await,
            json!({"plug_id": "plug-a", "name": null, "agent": "p0", "on": true, "reported_at": second})
        );
        send(switched("plug-a", &ago(1), false));
        house
            .until("the plug is off", async || {
                house.plug("plug-a").await["on"] == false
            })
            .await;
    });
}

#[test]
fn bad_records_are_counted_and_passed_over() {
    with_house(async |house| {
        let bad = r#"homelab_settings_api_records_total{outcome="bad"}"#;
        let before = house.metric(bad).await;
        let odd_agent = switched("plug-bad", &ago(1), true)
            .1
            .replace(r#""agent":"p0""#, r#""agent":"p\u0000""#);
        let key = "plug-good";
        let plug = telemetry::topic::PLUG;
        house.produce(vec![
            (plug, key, String::new()),
            (plug, key, "not json".to_owned()),
            (plug, key, r#"{"kind":"water"}"#.to_owned()),
            (plug, key, odd_agent),
            (
                plug,
                key,
                record("plug", "plug-bad", &ago(1), "synced", json!({"on": "yes"})),
            ),
            (
                plug,
                key,
                record("plug", "plug-bad", &ago(1), "synced", json!({"power_w": 3})),
            ),
            (plug, key, switched(key, &ago(1), true).1),
        ]);
        house
            .until("the good record is taken", async || {
                house.plug(key).await["on"] == true
            })
            .await;
        assert_eq!(house.plug("plug-bad").await, Value::Null);
        assert_eq!(house.metric(bad).await - before, 5.0);
    });
}

#[test]
fn wanted_values_come_from_open_commands_alone() {
    with_house(async |house| {
        let (topic, value) = pump(
            "ivt-wanted",
            &ago(5),
            "synced",
            json!({"indoor_target_c": 20, "mode": 1}),
        );
        house.produce(vec![(topic, "ivt-wanted", value)]);
        let device = "ivt-wanted";
        house
            .until("the pump is known", async || {
                house.settings_of(device).await["device_id"] == device
            })
            .await;
        let insert = "insert into outbox (device_id, agent, kind, wanted, status, finished_at, requested_by) values
            ('ivt-wanted', 'p0', 'heatpump_settings', '{\"indoor_target_c\": 24}', 'published', null, 'x'),
            ('ivt-wanted', 'p0', 'heatpump_settings', '{\"indoor_target_c\": 25, \"curve\": 40}', 'pending', null, 'x'),
            ('ivt-wanted', 'p0', 'heatpump_settings', '{\"mode\": 2}', 'failed', now(), 'x')";
        house.postgres.psql("homelab_settings", insert).await.unwrap();
        let body = house.settings_of(device).await;
        assert_eq!(body["wanted"], json!({"indoor_target_c": 25, "curve": 40}));
        assert_eq!(
            (&body["reported"]["indoor_target_c"], &body["reported"]["mode"]),
            (&json!(20), &json!(1))
        );
    });
}

#[test]
fn paths_scopes_and_methods() {
    with_house(async |house| {
        for (path, scope) in [
            ("/api/v1/heatpump/settings", "read:settings"),
            ("/api/v1/heatpump/settings/absent", "read:settings"),
            ("/api/v1/plugs", "read:plugs"),
        ] {
            let (status, body) = house.ask(path, "read:energy write:settings write:plugs").await;
            assert_eq!(
                (status, body["detail"].as_str()),
                (403, Some(format!("scope {scope} is missing").as_str()))
            );
            let nobody = house
                .client
                .get(format!("{}{path}", house.url))
                .send()
                .await
                .unwrap();
            assert_eq!(nobody.status(), 401, "{path}");
        }
        assert_eq!(
            house.ask("/api/v1/heatpump/settings/absent", ALL_SCOPES).await.0,
            404
        );
        assert_eq!(
            house.ask("/api/v1/heatpump/settings/%00", ALL_SCOPES).await.0,
            400
        );
        for (method, path) in [
            ("PATCH", "/api/v1/heatpump/settings/ivt-1"),
            ("PATCH", "/api/v1/plugs/plug-a"),
            ("POST", "/api/v1/plugs/plug-a/schedules"),
            ("DELETE", "/api/v1/plugs/plug-a/schedules/1"),
            ("POST", "/api/v1/plugs"),
        ] {
            let request = house
                .client
                .request(method.parse().unwrap(), format!("{}{path}", house.url));
            let response = request
                .bearer_auth(house.issuer.good(ALL_SCOPES))
                .send()
                .await
                .unwrap();
            assert_eq!(response.status(), 405, "{method} {path}");
            assert_eq!(
                response.headers()["content-type"],
                "application/problem+json",
                "{method} {path}"
            );
        }
        for path in ["/health", "/livez", "/readyz", "/openapi.json"] {
            assert_eq!(
                house
                    .client
                    .get(format!("{}{path}", house.url))
                    .send()
                    .await
                    .unwrap()
                    .status(),
                200,
                "{path}"
            );
        }
    });
}

#[test]
fn nothing_is_lost_while_database_or_broker_are_away() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let house = house("outages").await;
        let send = |plug: &str, on: bool| {
            let (topic, value) = switched(plug, &ago(1), on);
            house.produce(vec![(topic, plug, value)]);
        };
        send("before", true);
        house
            .until("the first is taken", async || {
                house.plug("before").await["on"] == true
            })
            .await;

        house.postgres.stop().await;
        send("meanwhile", true);
        house
            .until("readyz names the database", async || {
                house.failing().await == ["database"]
            })
            .await;
        let (status, body) = house.ask("/api/v1/plugs", "read:plugs").await;
        assert_eq!(
            (status, body["detail"].as_str()),
            (503, Some("the service cannot answer just now"))
        );
        house.postgres.part().restart().await.unwrap();
        house
            .until("what came meanwhile is taken", async || {
                house.plug("meanwhile").await["on"] == true
            })
            .await;

        let Some(broker) = house.kafka.part() else {
            panic!("this test needs a broker of its own: unset KAFKA_BOOTSTRAP")
        };
        broker.kill().await;
        house
            .until("readyz names the broker", async || {
                house.failing().await == ["kafka"]
            })
            .await;
        assert_eq!(
            house.ask("/api/v1/plugs", "read:plugs").await.0,
            200,
            "what is known is shown all the while"
        );
        broker.restart().await.unwrap();
        house
            .until("the broker is back", async || house.failing().await.is_empty())
            .await;
        send("after", true);
        house
            .until("what comes after is taken", async || {
                house.plug("after").await["on"] == true
            })
            .await;

        house.lifecycle.stop();
        house.lifecycle.wait().await.unwrap();
    });
}
