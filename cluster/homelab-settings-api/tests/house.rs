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

fn settings(postgres: &Postgres, kafka: &Kafka, issuer: &TestIssuer, group: &str) -> Settings {
    Settings::from_env(&Env::of(&[
        ("DATABASE_URL", &postgres.url("settings", "homelab_settings")),
        ("KAFKA_BOOTSTRAP", kafka.bootstrap()),
        ("KAFKA_GROUP", group),
        ("OIDC_ISSUERS", issuer.url()),
        ("OIDC_AUDIENCES", stack::issuer::AUDIENCE),
    ]))
    .unwrap()
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

    /// Asks with every scope; the answer's status, headers and body.
    async fn send(
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
    async fn knows_pump(&self, device: &str, settings: Value) {
        let (topic, value) = pump(device, &ago(5), "synced", settings);
        self.produce(vec![(topic, device, value)]);
        self.until("the pump is known", async || {
            self.settings_of(device).await["device_id"] == device
        })
        .await;
    }

    /// Another process of the same service, as far as the database can tell.
    async fn replica(&self) -> Lifecycle {
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners = Listeners::bind(any, any).await.unwrap();
        let lifecycle = Lifecycle::new();
        let settings = settings(&self.postgres, &self.kafka, &self.issuer, "replica");
        run(settings, listeners, &lifecycle).unwrap();
        lifecycle
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
            json!({"plug_id": "plug-a", "name": null, "agent": "p0", "on": true, "reported_at": second,
                "wanted_on": null})
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
        let insert = "insert into outbox (device_id, agent, kind, wanted, asked, status, finished_at, requested_by) values
            ('ivt-wanted', 'p0', 'heatpump_settings', '{\"indoor_target_c\": 24}', '{}', 'published', null, 'x'),
            ('ivt-wanted', 'p0', 'heatpump_settings', '{\"indoor_target_c\": 25, \"curve\": 40}', '{}', 'pending', null, 'x'),
            ('ivt-wanted', 'p0', 'heatpump_settings', '{\"mode\": 2}', '{}', 'failed', now(), 'x')";
        house.postgres.psql("homelab_settings", insert).await.unwrap();
        let body = house.settings_of(device).await;
        assert_eq!(body["wanted"], json!({"indoor_target_c": 25, "curve": 40}));
        assert_eq!(
            (&body["reported"]["indoor_target_c"], &body["reported"]["mode"]),
            (&json!(20), &json!(1))
        );
    });
}

/// Every endpoint that needs a token, and the one scope that opens it.
const ENDPOINTS: [(&str, &str, &str); 16] = [
    ("GET", "/api/v1/heatpump/settings", "read:settings"),
    ("GET", "/api/v1/heatpump/settings/absent", "read:settings"),
    ("PATCH", "/api/v1/heatpump/settings/absent", "write:settings"),
    ("GET", "/api/v1/heatpump/settings/absent/outbox", "read:settings"),
    ("GET", "/api/v1/heatpump/settings/outbox/1", "read:settings"),
    ("GET", "/api/v1/plugs", "read:plugs"),
    ("GET", "/api/v1/plugs/absent", "read:plugs"),
    ("PATCH", "/api/v1/plugs/absent", "write:plugs"),
    ("GET", "/api/v1/plugs/absent/outbox", "read:plugs"),
    ("GET", "/api/v1/plugs/absent/outbox/1", "read:plugs"),
    ("GET", "/api/v1/plugs/absent/schedules", "read:plugs"),
    ("POST", "/api/v1/plugs/absent/schedules", "write:plugs"),
    ("GET", "/api/v1/plugs/absent/schedules/1", "read:plugs"),
    ("PATCH", "/api/v1/plugs/absent/schedules/1", "write:plugs"),
    ("DELETE", "/api/v1/plugs/absent/schedules/1", "write:plugs"),
    ("GET", "/api/v1/plugs/%F0%9F%94%8C/schedules", "read:plugs"),
];

#[test]
fn every_endpoint_with_no_token_every_single_scope_and_all() {
    with_house(async |house| {
        let scopes: Vec<&str> = ALL_SCOPES
            .split(' ')
            .filter(|scope| scope.contains(':'))
            .collect();
        assert_eq!(scopes.len(), 7);
        for (method, path, needed) in ENDPOINTS {
            let ask = async |scope: Option<&str>| {
                let request = house
                    .client
                    .request(method.parse().unwrap(), format!("{}{path}", house.url))
                    .json(&json!({}));
                let request = match scope {
                    Some(scope) => request.bearer_auth(house.issuer.good(scope)),
                    None => request,
                };
                let response = request.send().await.unwrap();
                let status = response.status().as_u16();
                if status >= 400 {
                    assert_eq!(
                        response.headers()["content-type"],
                        "application/problem+json",
                        "{method} {path}"
                    );
                }
                let body: Value = response.json().await.unwrap();
                (status, body["detail"].as_str().unwrap_or_default().to_owned())
            };
            assert_eq!(ask(None).await.0, 401, "{method} {path}");
            for scope in &scopes {
                let (status, detail) = ask(Some(scope)).await;
                if *scope == needed {
                    assert!(
                        matches!(status, 200 | 400 | 404),
                        "{method} {path} {scope}: {status} {detail}"
                    );
                } else {
                    assert_eq!(
                        (status, detail),
                        (403, format!("scope {needed} is missing")),
                        "{method} {path} {scope}"
                    );
                }
            }
            let (status, detail) = ask(Some(ALL_SCOPES)).await;
            assert!(
                matches!(status, 200 | 400 | 404),
                "{method} {path}: {status} {detail}"
            );
        }
    });
}

#[test]
fn paths_and_methods() {
    with_house(async |house| {
        assert_eq!(
            house.ask("/api/v1/heatpump/settings/absent", ALL_SCOPES).await.0,
            404
        );
        assert_eq!(
            house.ask("/api/v1/heatpump/settings/%00", ALL_SCOPES).await.0,
            400
        );
        for (method, path) in [
            ("POST", "/api/v1/plugs"),
            ("PUT", "/api/v1/heatpump/settings/ivt-1"),
            ("DELETE", "/api/v1/plugs/plug-a"),
            ("PATCH", "/api/v1/heatpump/settings/outbox/1"),
        ] {
            let (status, _, _) = house.send(method, path, &[], json!({})).await;
            assert_eq!(status, 405, "{method} {path}");
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
fn a_change_is_accepted_once_and_can_be_followed() {
    with_house(async |house| {
        let device = "ivt-change";
        let path = format!("/api/v1/heatpump/settings/{device}");
        house
            .knows_pump(
                device,
                json!({"indoor_target_c": 20, "curve_min": 22, "curve_max": 55}),
            )
            .await;

        let key = [("Idempotency-Key", "wish-1")];
        let body = json!({"indoor_target_c": 22, "curve": 40});
        let (status, headers, first) = house.send("PATCH", &path, &key, body.clone()).await;
        assert_eq!(
            (status, &first["status"], &first["device_id"]),
            (202, &json!("pending"), &json!(device))
        );
        let id = first["outbox_id"].as_i64().unwrap();
        assert_eq!(
            headers["location"],
            format!("/api/v1/heatpump/settings/outbox/{id}").as_str()
        );
        let (status, _, again) = house.send("PATCH", &path, &key, body).await;
        assert_eq!((status, again["outbox_id"].as_i64()), (202, Some(id)));
        let other = json!({"indoor_target_c": 23});
        assert_eq!(house.send("PATCH", &path, &key, other.clone()).await.0, 422);
        let together = [("Idempotency-Key", "wish-together")];
        let send = || house.send("PATCH", &path, &together, json!({"heat_stop_c": 16}));
        let (a, b, c) = tokio::join!(send(), send(), send());
        assert_eq!((a.0, b.0, c.0), (202, 202, 202));
        assert_eq!(
            (&a.2["outbox_id"], &b.2["outbox_id"]),
            (&b.2["outbox_id"], &c.2["outbox_id"])
        );

        // A later change takes over its fields; what is left is still wanted, and nothing of it is reported.
        assert_eq!(house.send("PATCH", &path, &[], other).await.0, 202);
        let shown = house.settings_of(device).await;
        assert_eq!(
            shown["wanted"],
            json!({"indoor_target_c": 23, "curve": 40, "heat_stop_c": 16})
        );
        assert_eq!(
            (&shown["reported"]["indoor_target_c"], &shown["reported"]["curve"]),
            (&json!(20), &Value::Null)
        );
        let command = format!("/api/v1/heatpump/settings/outbox/{id}");
        let (_, one) = house.ask(&command, "read:settings").await;
        assert_eq!(
            (&one["asked"], &one["wanted"]),
            (
                &json!({"indoor_target_c": 22, "curve": 40}),
                &json!({"curve": 40})
            )
        );
        assert_eq!(one["history"][0]["status"], "pending");
        assert!(
            one["requested_by"]
                .as_str()
                .is_some_and(|subject| !subject.is_empty()),
            "{one}"
        );
        assert_eq!(house.send("PATCH", &path, &[], json!({"curve": 41})).await.0, 202);
        let (_, one) = house.ask(&command, "read:settings").await;
        assert_eq!(one["status"], "superseded");
        assert_eq!(
            one["history"].as_array().unwrap().last().unwrap()["status"],
            "superseded"
        );

        let (_, page) = house
            .ask(&format!("{path}/outbox?limit=2"), "read:settings")
            .await;
        let next = page["next"].as_i64().unwrap();
        assert_eq!(page["items"].as_array().unwrap().len(), 2);
        let (_, rest) = house
            .ask(&format!("{path}/outbox?limit=2&before={next}"), "read:settings")
            .await;
        assert_eq!(
            (rest["items"][1]["id"].as_i64(), &rest["next"]),
            (Some(id), &Value::Null)
        );
        for query in ["limit=0", "limit=101", "limit=x", "page=2"] {
            assert_eq!(
                house
                    .ask(&format!("{path}/outbox?{query}"), "read:settings")
                    .await
                    .0,
                400,
                "{query}"
            );
        }
    });
}

#[test]
fn changes_that_cannot_be_taken_are_refused_and_change_nothing() {
    with_house(async |house| {
        let device = "ivt-refused";
        let path = format!("/api/v1/heatpump/settings/{device}");
        house
            .knows_pump(
                device,
                json!({"indoor_target_c": 20, "curve_min": 22, "curve_max": 55}),
            )
            .await;
        for (body, fields) in [
            (json!({"indoor_target_c": 31}), vec!["indoor_target_c"]),
            (
                json!({"indoor_target_c": 14, "mode": 5}),
                vec!["indoor_target_c", "mode"],
            ),
            (json!({"d50": 22}), vec!["d50"]),
            (json!({"indoor_target_c": "22"}), vec!["indoor_target_c"]),
            (json!({"curve_max": 21}), vec!["curve_max"]),
            (json!({}), vec![]),
            (json!([1]), vec![]),
        ] {
            let (status, headers, problem) = house.send("PATCH", &path, &[], body.clone()).await;
            assert_eq!(
                (status, &headers["content-type"]),
                (400, &"application/problem+json".parse().unwrap())
            );
            let named: Vec<_> = problem["errors"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|e| e["field"].clone())
                .collect();
            assert_eq!(named, fields, "{body}");
        }
        let good = json!({"indoor_target_c": 22});
        assert_eq!(
            house
                .send("PATCH", &path, &[("Idempotency-Key", "")], good.clone())
                .await
                .0,
            400
        );
        assert_eq!(
            house
                .send("PATCH", &path, &[("If-Match", "\"other\"")], good.clone())
                .await
                .0,
            412
        );
        let (_, page) = house.ask(&format!("{path}/outbox"), "read:settings").await;
        assert_eq!(page["items"], json!([]));

        let response = house
            .client
            .get(format!("{}{path}", house.url))
            .bearer_auth(house.issuer.good(ALL_SCOPES));
        let tag = response.send().await.unwrap().headers()["etag"]
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            house
                .send("PATCH", &path, &[("If-Match", &tag)], good.clone())
                .await
                .0,
            202
        );
        assert_eq!(
            house
                .send("PATCH", &path, &[("If-Match", &tag)], json!({"mode": 2}))
                .await
                .0,
            412
        );
        assert_eq!(
            house
                .send("PATCH", "/api/v1/heatpump/settings/nobody", &[], good)
                .await
                .0,
            404
        );
    });
}

#[test]
fn schedules_are_kept() {
    with_house(async |house| {
        let (topic, value) = switched("plug-kept", &ago(1), true);
        house.produce(vec![(topic, "plug-kept", value)]);
        house
            .until("the plug is known", async || {
                house.plug("plug-kept").await["on"] == true
            })
            .await;
        let path = "/api/v1/plugs/plug-kept/schedules";
        let body = json!({"weekdays": [7, 1], "local_time": "02:30", "on": false});
        let (status, headers, made) = house.send("POST", path, &[], body).await;
        assert_eq!(
            (status, &made["weekdays"], &made["enabled"]),
            (201, &json!([1, 7]), &json!(true))
        );
        assert!(made["next_run_at"].is_string(), "{made}");
        let id = made["id"].as_i64().unwrap();
        assert_eq!(headers["location"], format!("schedules/{id}").as_str());
        let one = format!("{path}/{id}");
        let (status, _, changed) = house.send("PATCH", &one, &[], json!({"enabled": false})).await;
        assert_eq!(
            (status, &changed["local_time"], &changed["next_run_at"]),
            (200, &json!("02:30"), &Value::Null)
        );
        assert_eq!(house.send("PATCH", &one, &[], json!({})).await.0, 400);
        assert_eq!(
            house.send("PATCH", &one, &[], json!({"plug_id": "x"})).await.0,
            400
        );
        assert_eq!(house.send("POST", path, &[], json!({"on": true})).await.0, 400);
        let (_, list) = house.ask(path, "read:plugs").await;
        assert_eq!(
            (&list["time_zone"], &list["items"][0]["id"]),
            (&json!("Europe/Stockholm"), &json!(id))
        );
        let elsewhere = format!("/api/v1/plugs/plug-other/schedules/{id}");
        assert_eq!(house.send("DELETE", &elsewhere, &[], json!({})).await.0, 404);
        assert_eq!(house.send("DELETE", &one, &[], json!({})).await.0, 204);
        assert_eq!(house.send("DELETE", &one, &[], json!({})).await.0, 404);
    });
}

#[test]
fn a_run_is_made_once_within_its_grace_and_noted_beyond_it() {
    with_house(async |house| {
        let (topic, value) = switched("plug-run", &ago(1), true);
        house.produce(vec![(topic, "plug-run", value)]);
        house
            .until("the plug is known", async || {
                house.plug("plug-run").await["on"] == true
            })
            .await;
        // A second replica looks at the same schedules.
        let second = house.replica().await;
        let psql = async |statement: &str| house.postgres.psql("homelab_settings", statement).await.unwrap();
        // Each as many minutes ago: made, missed, and not yet begun when its time came.
        psql("insert into power_plug_schedules (plug_id, weekdays, local_time, turn_on, created_by, effective_from)
            select 'plug-run', '{1,2,3,4,5,6,7}', ((now() - ago) at time zone 'Europe/Stockholm')::time, false, 'x', since
            from (values (interval '2 minutes', now() - interval '1 day'), ('40 minutes', now() - interval '1 day'),
                ('1 minute', now())) as v (ago, since)")
            .await;
        let runs = "select outcome, run.outbox_id is not null, requested_by = 'schedule:' || schedule.id
            from power_plug_schedule_runs as run join power_plug_schedules as schedule on schedule.id = schedule_id
            left join outbox on outbox.id = run.outbox_id
            where local_date > (now() at time zone 'Europe/Stockholm' - interval '12 hours')::date - 1
                and plug_id = 'plug-run' and run_at > now() - interval '1 hour' order by 1 desc";
        house
            .until("the runs are noted", async || {
                psql(runs).await.contains("queued|t|t")
            })
            .await;
        house
            .until("the missed one too", async || {
                psql(runs).await.contains("missed|f|")
            })
            .await;
        // Both replicas look every second: what they would do again, they have had the time to.
        let looked = Instant::now();
        house
            .until("both have looked again", async || {
                looked.elapsed() > Duration::from_secs(3)
            })
            .await;
        assert_eq!(
            psql("select count(*) from outbox where device_id = 'plug-run'").await,
            "1"
        );
        assert_eq!(house.plug("plug-run").await["wanted_on"], false);
        second.stop();
        second.wait().await.unwrap();
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
