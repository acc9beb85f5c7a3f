//! Every answer of the read API against a real PostgreSQL with the real migrations and a real issuer of tokens.
//!
//! The tests share one service and one database; each has devices of its own. The one test that needs the whole house
//! to itself, and those that break the database, start their own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod contract;
mod cost;
mod document;
mod forms;
mod hostile;
mod latest;
mod role;

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use homelab_api::{Settings, run};
use serde_json::{Value, json};
use service::server::Listeners;
use service::{Env, Lifecycle};
use stack::issuer::{ALL_SCOPES, TestIssuer};
use stack::postgres::Postgres;
use tokio::runtime::Runtime;

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

struct House {
    postgres: Postgres,
    issuer: TestIssuer,
    url: String,
    admin: String,
    client: reqwest::Client,
    _lifecycle: Lifecycle,
}

/// A service with a database of its own.
async fn house() -> House {
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
fn with_house<T: Future<Output = ()>>(test: impl FnOnce(&'static House) -> T) {
    static SHARED: OnceLock<(Runtime, House)> = OnceLock::new();
    let (runtime, house) = SHARED.get_or_init(|| {
        let runtime = Runtime::new().unwrap();
        let house = runtime.block_on(house());
        (runtime, house)
    });
    runtime.block_on(test(house));
}

struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

impl House {
    async fn ask(&self, path: &str, token: &str) -> Answer {
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
    async fn get(&self, path: &str) -> Value {
        let answer = self.ask(path, &self.issuer.good(ALL_SCOPES)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    async fn sql(&self, statement: &str) {
        self.postgres.psql("telemetry", statement).await.unwrap();
    }

    async fn until_ready(&self, want: Value) {
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
fn meter_rows(device: &str, start: &str) -> String {
    format!(
        "insert into energy_consumption (device_id, time, id, agent, clock, power_w, power_l1_w, energy_wh)
         select '{device}', timestamptz '{start}' + n * interval '1 minute', '{device}/' || n, 'p0', 'synced',
             1000, 400, 5000 + n * 1000.0 / 60
         from generate_series(0, 60) as n"
    )
}

#[test]
fn the_newest_reading_of_each_meter() {
    with_house(async |house| {
        house
            .sql(
                "insert into energy_consumption (device_id, time, id, agent, clock, location, power_w, energy_wh, meter_id)
                 values ('latest-1', now() - interval '2 min', 'a', 'p0', 'synced', null, 1, 1, null),
                        ('latest-1', now() - interval '1 min', 'b', 'p1', 'unsynced', 'cellar', 40000, 41230187.5, 'm'),
                        ('latest-1', now() - interval '3 min', 'c', 'p0', 'synced', null, 2, 2, null)",
            )
            .await;
        let body = house.get("/api/v1/energy/latest?device_id=latest-1").await;
        assert_eq!(body["items"].as_array().unwrap().len(), 1);
        let item = &body["items"][0];
        for (field, want) in [
            ("device_id", json!("latest-1")),
            ("clock", json!("unsynced")),
            ("agent", json!("p1")),
            ("location", json!("cellar")),
            ("power_w", json!(40_000.0)),
            ("energy_wh", json!(41_230_187.5)),
            ("meter_id", json!("m")),
            ("voltage_l1_v", Value::Null),
        ] {
            assert_eq!(item[field], want, "{field}");
        }
        assert!(item["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(
            item.as_object().unwrap().len(),
            22,
            "every field of docs/API.md, reported or not"
        );
        let all = house.get("/api/v1/energy/latest").await;
        assert!(
            all["items"]
                .as_array()
                .unwrap()
                .iter()
                .any(|item| item["device_id"] == "latest-1")
        );
        assert_eq!(
            house.get("/api/v1/energy/latest?device_id=absent").await,
            json!({"items": []})
        );
    });
}

#[test]
fn energy_by_hour_day_month_and_year() {
    with_house(async |house| {
        house.sql(&meter_rows("sums", "2026-03-10 12:00:00+00")).await;
        let near = |value: &Value, want: f64| (value.as_f64().unwrap() - want).abs() < 1e-6;
        let range = "from=2026-03-10T12:00:00Z&to=2026-03-10T13:00:00Z&device_id=sums";
        let hours = house.get(&format!("/api/v1/energy/history?{range}")).await;
        assert_eq!(hours["devices"], json!(["sums"]));
        assert_eq!(hours["from"], "2026-03-10T12:00:00Z");
        assert_eq!(hours["items"].as_array().unwrap().len(), 1);
        let hour = &hours["items"][0];
        assert_eq!(
            (&hour["start"], &hour["end"]),
            (&json!("2026-03-10T12:00:00Z"), &json!("2026-03-10T13:00:00Z"))
        );
        // The reading at 13:00 belongs to the next hour, and with it the last minute's gain.
        assert!(near(&hour["energy_kwh"], 59.0 / 60.0), "{hour}");
        assert!(
            near(&hour["average_power_w"], 1_000.0) && near(&hour["average_power_l1_w"], 400.0),
            "{hour}"
        );
        assert_eq!((&hour["count"], &hour["estimated"]), (&json!(60), &json!(false)));
        for field in ["export_kwh", "average_power_l2_w", "cost", "currency"] {
            assert_eq!(hour[field], Value::Null, "{field}");
        }
        for (path, start, end, from) in [
            (
                "daily",
                "2026-03-09T23:00:00Z",
                "2026-03-10T23:00:00Z",
                "2026-03-01T00:00:00Z",
            ),
            (
                "monthly",
                "2026-02-28T23:00:00Z",
                "2026-03-31T22:00:00Z",
                "2026-01-01T00:00:00Z",
            ),
            (
                "yearly",
                "2025-12-31T23:00:00Z",
                "2026-12-31T23:00:00Z",
                "2025-01-01T00:00:00Z",
            ),
        ] {
            let to = "2026-04-01T00:00:00Z";
            let path = format!("/api/v1/energy/{path}-summary?from={from}&to={to}&device_id=sums");
            let body = house.get(&path).await;
            let item = &body["items"][0];
            assert_eq!(
                (&item["start"], &item["end"]),
                (&json!(start), &json!(end)),
                "{path}"
            );
            assert!(near(&item["energy_kwh"], 1.0), "{path}: {item}");
            assert_eq!(item["count"], 61, "{path}");
        }
        let before = "from=2026-03-10T11:00:00Z&to=2026-03-10T12:00:00Z&device_id=sums";
        assert_eq!(
            house.get(&format!("/api/v1/energy/history?{before}")).await["items"],
            json!([])
        );
    });
}

#[test]
fn the_house_is_the_sum_of_its_main_meters() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let house = house().await;
        let range = "from=2026-03-10T12:00:00Z&to=2026-03-10T13:00:00Z";
        let history = format!("/api/v1/energy/history?{range}");
        let nothing = house.get(&history).await;
        assert_eq!((&nothing["devices"], &nothing["items"]), (&json!([]), &json!([])));
        for device in ["a", "b", "sub"] {
            house.sql(&meter_rows(device, "2026-03-10 12:00:00+00")).await;
        }
        house
            .sql("insert into energy_meters values ('a', 'main'), ('b', 'main'), ('sub', 'sub')")
            .await;
        let body = house.get(&history).await;
        assert_eq!(body["devices"], json!(["a", "b"]));
        let item = &body["items"][0];
        assert!(
            (item["energy_kwh"].as_f64().unwrap() - 2.0 * 59.0 / 60.0).abs() < 1e-6,
            "{item}"
        );
        assert_eq!(
            (&item["average_power_w"], &item["count"]),
            (&json!(2_000.0), &json!(120))
        );

        house
            .sql(
                "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh)
                 select d, now() - n * interval '1 second', 'now/' || n, 'p0', 'synced', 1e6 - n
                 from unnest(array['a', 'b']) as d, generate_series(0, 2) as n",
            )
            .await;
        let total = house.get("/api/v1/energy/hourly-total").await;
        assert_eq!(total["devices"], json!(["a", "b"]));
        let time = |field: &str| {
            total[field]
                .as_str()
                .unwrap()
                .parse::<chrono::DateTime<chrono::Utc>>()
                .unwrap()
        };
        assert_eq!(time("end") - time("start"), chrono::TimeDelta::hours(1));
        assert!(time("start") <= chrono::Utc::now() && chrono::Utc::now() < time("end"));
        let one = house.get("/api/v1/energy/hourly-total?device_id=absent").await;
        assert_eq!(
            (&one["energy_kwh"], &one["count"], &one["estimated"]),
            (&Value::Null, &json!(0), &json!(false))
        );
    });
}

#[test]
fn temperatures_raw_and_averaged() {
    with_house(async |house| {
        house
            .sql(
                "insert into temperature_sensors (device_id, time, id, agent, clock, location, temperature_c, humidity_percent)
                 select 'room', timestamptz '2026-05-01 00:00:00+00' + n * interval '30 seconds', 'r/' || n, 'p0',
                     'synced', 'attic', 20 + n % 2, 40
                 from generate_series(0, 2400) as n;
                 insert into temperature_sensors (device_id, time, id, agent, clock, location, temperature_c)
                 values ('room', '2026-05-01 00:00:10+00', 'bad clock', 'p0', 'unsynced', 'attic', 99),
                        ('porch', now() - interval '1 hour', 'p/1', 'p0', 'synced', 'porch', -4.5),
                        ('porch', now() - interval '2 hours', 'p/0', 'p0', 'synced', 'old place', -5)",
            )
            .await;
        let raw = house
            .get("/api/v1/temperature/history?device_id=room&from=2026-05-01T00:00:00Z&to=2026-05-01T00:01:00Z")
            .await;
        assert_eq!(raw["resolution_seconds"], Value::Null);
        assert_eq!(
            raw["items"],
            json!([
                {"device_id":"room","location":"attic","time":"2026-05-01T00:00:00Z","temperature_c":20.0,"humidity_percent":40.0},
                {"device_id":"room","location":"attic","time":"2026-05-01T00:00:30Z","temperature_c":21.0,"humidity_percent":40.0},
            ])
        );
        let day = house
            .get("/api/v1/temperature/history?location=attic&from=2026-05-01T00:00:00Z&to=2026-05-02T00:00:00Z")
            .await;
        assert_eq!(
            day["resolution_seconds"], 300,
            "2,401 readings are more than 2,000"
        );
        assert_eq!(day["items"].as_array().unwrap().len(), 241);
        assert_eq!(day["items"][0]["temperature_c"], 20.5);
        let month = house
            .get("/api/v1/temperature/history?device_id=room&from=2026-04-20T00:00:00Z&to=2026-05-15T00:00:00Z")
            .await;
        assert_eq!(month["resolution_seconds"], 3_600);
        assert_eq!(month["items"].as_array().unwrap().len(), 21);

        let porch = house
            .get("/api/v1/temperature/history?device_id=porch&hours=3")
            .await;
        assert_eq!(porch["items"].as_array().unwrap().len(), 2);
        let here = house.get("/api/v1/temperature/latest?location=porch").await;
        assert_eq!(here["items"][0]["temperature_c"], -4.5);
        assert_eq!(here["items"][0].as_object().unwrap().len(), 15);
        assert_eq!(
            house.get("/api/v1/temperature/latest?location=old%20place").await,
            json!({"items": []})
        );
        let all = house.get("/api/v1/temperature/all-latest").await;
        assert!(all["items"].as_array().unwrap().len() >= 2);
    });
}

#[test]
fn the_heat_pump_by_resolution_and_day() {
    with_house(async |house| {
        house
            .sql(
                "insert into heatpump_status (device_id, time, id, agent, clock, outdoor_c, brine_in_c, compressor_on,
                     hot_water_on, settings_mode, settings_indoor_target_c)
                 select 'pump', timestamptz '2026-06-01 10:00:00+00' + n * interval '30 seconds', 'h/' || n, 'p0', 'synced',
                     -4, 3, n % 120 < 60, false, 1, 21
                 from generate_series(0, 239) as n",
            )
            .await;
        let latest = house.get("/api/v1/heatpump/latest?device_id=pump").await;
        let item = &latest["items"][0];
        assert_eq!(
            (&item["outdoor_c"], &item["compressor_on"]),
            (&json!(-4.0), &json!(false))
        );
        assert_eq!(
            (&item["settings"]["mode"], &item["settings"]["curve"]),
            (&json!(1), &Value::Null)
        );
        assert_eq!(
            (
                item.as_object().unwrap().len(),
                item["settings"].as_object().unwrap().len()
            ),
            (25, 10)
        );

        let range = "from=2026-06-01T10:00:00Z&to=2026-06-01T12:00:00Z&device_id=pump";
        let points = async |resolution: &str| {
            house
                .get(&format!("/api/v1/heatpump/history?{range}{resolution}"))
                .await
        };
        let minutes = points("").await;
        assert_eq!(minutes["resolution_seconds"], 60);
        assert_eq!(minutes["items"].as_array().unwrap().len(), 120);
        let quarters = points("&resolution=15m").await;
        let shares: Vec<_> = quarters["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["compressor_share"].clone())
            .collect();
        assert_eq!(
            shares,
            [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0].map(|share| json!(share))
        );
        assert_eq!(quarters["items"][0]["brine_in_c"], 3.0);
        let hours = points("&resolution=1h").await;
        assert_eq!(hours["items"].as_array().unwrap().len(), 2);
        assert_eq!(hours["items"][0]["count"], 120);
        let share = hours["items"][0]["compressor_share"].as_f64().unwrap();
        assert!((share - 0.5).abs() < 0.02, "{share}");

        let days = house
            .get("/api/v1/heatpump/daily-summary?from=2026-05-31T22:00:00Z&to=2026-06-02T00:00:00Z")
            .await;
        let day = days["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|day| day["device_id"] == "pump")
            .unwrap();
        assert_eq!(
            (&day["start"], &day["end"]),
            (&json!("2026-05-31T22:00:00Z"), &json!("2026-06-01T22:00:00Z"))
        );
        assert!(
            (day["compressor_hours"].as_f64().unwrap() - 1.0).abs() < 0.03,
            "{day}"
        );
        assert_eq!(
            (&day["compressor_starts"], &day["mean_outdoor_c"]),
            (&json!(1), &json!(-4.0))
        );
    });
}

#[test]
fn plugs_by_hour() {
    with_house(async |house| {
        house
            .sql(
                "insert into plug_status (device_id, time, id, agent, clock, \"on\", power_w, energy_wh)
                 select 'plug/1 \u{e5}', timestamptz '2026-06-01 10:00:00+00' + n * interval '1 minute', 'p/' || n, 'p0',
                     'synced', true, 60, n from generate_series(0, 59) as n",
            )
            .await;
        let path =
            "/api/v1/plugs/plug%2F1%20%C3%A5/history?from=2026-06-01T10:00:00Z&to=2026-06-01T11:00:00Z";
        let body = house.get(path).await;
        assert_eq!(body["device_id"], "plug/1 \u{e5}");
        let hour = &body["items"][0];
        assert!(
            (hour["energy_kwh"].as_f64().unwrap() - 0.059).abs() < 1e-9,
            "{hour}"
        );
        assert!((hour["on_hours"].as_f64().unwrap() - 1.0).abs() < 0.001, "{hour}");
        assert_eq!(
            (&hour["average_power_w"], &hour["count"]),
            (&json!(60.0), &json!(60))
        );
        let absent = house.get("/api/v1/plugs/absent/history").await;
        assert_eq!(absent["items"], json!([]));
    });
}

#[test]
fn devices_of_the_kinds_the_token_covers() {
    with_house(async |house| {
        house
            .sql(
                "insert into temperature_sensors (device_id, time, id, agent, clock, location, temperature_c, battery_percent,
                     rssi_dbm, wake_period_seconds)
                 values ('dev-sensor', now() - interval '4 hours', 's/1', 'p1', 'synced', 'bedroom', 21, 77, -58, 7200);
                 insert into energy_consumption (device_id, time, id, agent, clock, power_w, rssi_dbm)
                 select 'dev-meter', now() - n * interval '10 seconds', 'm/' || n, 'p0', 'synced', 1, -61
                 from generate_series(0, 50) as n;
                 insert into events (time, id, type, agent, device_id, details)
                 values (now() - interval '2 min', 'dev-e1', 'device_online', 'p1', 'dev-sensor', '{\"online\": true}'),
                        (now() - interval '1 min', 'dev-e2', 'device_online', 'p1', 'dev-sensor', '{\"online\": false}')",
            )
            .await;
        let all = house.get("/api/v1/devices").await;
        let find = |body: &Value, id: &str| {
            body["items"]
                .as_array()
                .unwrap()
                .iter()
                .find(|item| item["device_id"] == id)
                .cloned()
        };
        let sensor = find(&all, "dev-sensor").unwrap();
        for (field, want) in [
            ("kind", json!("temperature")),
            ("location", json!("bedroom")),
            ("agent", json!("p1")),
            ("online", json!(false)),
            ("expected_interval_seconds", json!(7_200.0)),
            ("battery_percent", json!(77.0)),
            ("rssi_dbm", json!(-58.0)),
        ] {
            assert_eq!(sensor[field], want, "{field}");
        }
        let time = |field: &str| {
            sensor[field]
                .as_str()
                .unwrap()
                .parse::<chrono::DateTime<chrono::Utc>>()
                .unwrap()
        };
        assert_eq!(
            time("stale_since") - time("last_seen"),
            chrono::TimeDelta::hours(3)
        );
        let meter = find(&all, "dev-meter").unwrap();
        assert_eq!(
            (&meter["expected_interval_seconds"], &meter["stale_since"]),
            (&json!(10.0), &Value::Null)
        );
        assert_eq!(
            (&meter["online"], &meter["battery_percent"]),
            (&Value::Null, &Value::Null)
        );

        let some = house
            .ask("/api/v1/devices", &house.issuer.good("read:energy"))
            .await;
        assert!(find(&some.body, "dev-meter").is_some() && find(&some.body, "dev-sensor").is_none());
    });
}

#[test]
fn events_of_the_kinds_the_token_covers() {
    with_house(async |house| {
        house
            .sql(
                "insert into temperature_sensors (device_id, time, id, agent, clock) values ('ev-room', now(), 'e', 'p0', 'synced');
                 insert into events (time, id, type, agent, device_id, details)
                 values ('2026-02-01 00:00:00+00', 'ev-1', 'buffer_loss', 'p0', null, '{\"count\": 3, \"reason\": \"full\"}'),
                        ('2026-02-01 00:00:01+00', 'ev-2', 'device_online', 'p0', 'ev-room', '{\"online\": true}'),
                        ('2026-02-01 00:00:02+00', 'ev-3', 'device_online', 'p0', 'ev-unheard', '{\"online\": true}'),
                        ('2026-02-01 00:01:00+00', 'ev-4', 'clock_step', 'p0', null, '{\"step_seconds\": 1.5}')",
            )
            .await;
        let range = "from=2026-02-01T00:00:00Z&to=2026-02-01T00:01:00Z";
        let ids = |body: &Value| {
            body["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["id"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let path = format!("/api/v1/events?{range}");
        let all = house.get(&path).await;
        assert_eq!(ids(&all), ["ev-1", "ev-2", "ev-3"]);
        assert_eq!(
            all["items"][0],
            json!({"id":"ev-1","time":"2026-02-01T00:00:00Z","type":"buffer_loss","agent":"p0","device_id":null,
                "details":{"count":3,"reason":"full"}})
        );
        let energy = house.ask(&path, &house.issuer.good("read:energy")).await;
        assert_eq!(ids(&energy.body), ["ev-1"]);
        let temperature = house.ask(&path, &house.issuer.good("read:temperature")).await;
        assert_eq!(ids(&temperature.body), ["ev-1", "ev-2"]);
        assert_eq!(
            ids(&house.get(&format!("{path}&device_id=ev-room")).await),
            ["ev-2"]
        );
    });
}

#[test]
fn each_path_asks_for_its_scope() {
    with_house(async |house| {
        let none = house.issuer.good("openid");
        for (path, scope) in [
            ("/api/v1/energy/latest", "read:energy"),
            ("/api/v1/energy/hourly-total", "read:energy"),
            ("/api/v1/energy/history", "read:energy"),
            ("/api/v1/energy/daily-summary", "read:energy"),
            ("/api/v1/energy/monthly-summary", "read:energy"),
            ("/api/v1/energy/yearly-summary", "read:energy"),
            ("/api/v1/heatpump/latest", "read:heatpump"),
            ("/api/v1/heatpump/history", "read:heatpump"),
            ("/api/v1/heatpump/daily-summary", "read:heatpump"),
            ("/api/v1/temperature/latest", "read:temperature"),
            ("/api/v1/temperature/all-latest", "read:temperature"),
            ("/api/v1/temperature/history", "read:temperature"),
            ("/api/v1/plugs/x/history", "read:plugs"),
            ("/api/v1/devices", "read:energy"),
            ("/api/v1/events", "read:energy"),
        ] {
            let answer = house.ask(path, &none).await;
            assert_eq!(answer.status, 403, "{path}");
            assert!(
                answer.body["detail"].as_str().unwrap().contains(scope),
                "{path}: {}",
                answer.body
            );
            assert_eq!(
                house.ask(&format!("{path}?from=nonsense"), &none).await.status,
                403,
                "{path}"
            );
            assert_eq!(
                house.ask(path, &house.issuer.good(scope)).await.status,
                200,
                "{path}"
            );
            assert_eq!(
                house
                    .client
                    .get(format!("{}{path}", house.url))
                    .send()
                    .await
                    .unwrap()
                    .status(),
                401,
                "{path}"
            );
        }
        let info = house.ask("/api/v1/user/info", &none).await.body;
        assert_eq!(
            (
                &info["subject"],
                &info["username"],
                &info["name"],
                &info["scopes"]
            ),
            (
                &json!("6f1c0a"),
                &json!("demo"),
                &json!("Demo User"),
                &json!(["openid"])
            )
        );
        assert!(info["expires_at"].is_string());
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
        let metrics = house
            .client
            .get(format!("{}/metrics", house.url))
            .send()
            .await
            .unwrap();
        assert_eq!(metrics.status(), 404, "metrics are on the admin port only");
    });
}

#[test]
fn wrong_parameters_are_named() {
    with_house(async |house| {
        let token = house.issuer.good(ALL_SCOPES);
        let year = "from=2025-01-01T00:00:00Z&to=2026-06-01T00:00:00Z";
        for (path, field) in [
            (
                "/api/v1/energy/history?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
                "from",
            ),
            (
                "/api/v1/energy/history?from=2026-01-01T00:00:00Z&to=2026-03-01T00:00:00Z",
                "from",
            ),
            ("/api/v1/energy/history?from=0000-01-01T00:00:00Z", "from"),
            ("/api/v1/energy/history?to=9999-12-31T23:59:59Z", "to"),
            ("/api/v1/energy/history?to=NaN", "to"),
            ("/api/v1/energy/history?device_id=", "device_id"),
            ("/api/v1/energy/latest?device_id=a%00b", "device_id"),
            ("/api/v1/temperature/latest?location=%00", "location"),
            ("/api/v1/temperature/history?hours=0", "hours"),
            ("/api/v1/temperature/history?hours=8785", "hours"),
            ("/api/v1/temperature/history?hours=NaN", "hours"),
            (
                "/api/v1/temperature/history?hours=1&to=2026-01-01T00:00:00Z",
                "hours",
            ),
            (&format!("/api/v1/temperature/history?{year}"), "from"),
            (&format!("/api/v1/heatpump/history?{year}"), "from"),
            ("/api/v1/heatpump/history?resolution=1s", "resolution"),
            (
                "/api/v1/heatpump/history?resolution=1m&from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z",
                "resolution",
            ),
            ("/api/v1/plugs/%00/history", "device_id"),
            ("/api/v1/events?from=2020-01-01T00:00:00Z", "from"),
        ] {
            let answer = house.ask(path, &token).await;
            assert_eq!(answer.status, 400, "{path}: {}", answer.body);
            assert_eq!(
                answer.body["errors"][0]["field"], field,
                "{path}: {}",
                answer.body
            );
            assert_eq!(
                answer.headers["content-type"], "application/problem+json",
                "{path}"
            );
        }
        for path in [
            "/api/v1/energy/history?from=2026-01-01T00:00:00Z&from=2026-01-01T00:00:00Z",
            "/api/v1/plugs/%ff/history",
        ] {
            assert_eq!(house.ask(path, &token).await.status, 400, "{path}");
        }
        let hostile = "/api/v1/energy/latest?device_id=';drop%20table%20energy_consumption--";
        assert_eq!(house.get(hostile).await, json!({"items": []}));
        let post = house
            .client
            .post(format!("{}/api/v1/energy/latest", house.url))
            .bearer_auth(&token)
            .send();
        assert_eq!(post.await.unwrap().status(), 405);
    });
}

#[test]
fn large_answers_are_compressed_and_none_is_cached() {
    with_house(async |house| {
        let request = house
            .client
            .get(format!("{}/openapi.json", house.url))
            .header("accept-encoding", "gzip");
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-encoding"], "gzip");
        let answer = house
            .ask("/api/v1/energy/latest", &house.issuer.good(ALL_SCOPES))
            .await;
        assert_eq!(answer.headers["cache-control"], "no-store");
    });
}

#[test]
fn a_database_that_is_away_or_busy_is_503_and_found_again() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let house = house().await;
        let token = house.issuer.good(ALL_SCOPES);
        let path = "/api/v1/temperature/all-latest";
        assert_eq!(house.ask(path, &token).await.status, 200);

        // More requests than connections, all waiting for a lock: those without a connection are answered soon.
        let locked = house.sql("begin; lock table temperature_sensors; select pg_sleep(6); commit");
        let asked = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut answers = tokio::task::JoinSet::new();
            for _ in 0..12 {
                let request = house
                    .client
                    .get(format!("{}{path}", house.url))
                    .bearer_auth(&token)
                    .send();
                answers.spawn(async move {
                    let response = request.await.unwrap();
                    (
                        response.status().as_u16(),
                        response.headers().get("retry-after").is_some(),
                    )
                });
            }
            answers.join_all().await
        };
        let ((), answers) = tokio::join!(locked, asked);
        let refused = answers.iter().filter(|answer| **answer == (503, true)).count();
        let answered = answers.iter().filter(|answer| answer.0 == 200).count();
        assert_eq!((refused, answered), (4, 8), "{answers:?}");

        house.postgres.stop().await;
        let away = house.ask(path, &token).await;
        assert_eq!(
            (away.status, away.headers.get("retry-after").is_some()),
            (503, true)
        );
        assert_eq!(away.body["detail"], "the service cannot answer just now");
        house
            .until_ready(json!({"status": "unavailable", "failing": ["database"]}))
            .await;
        house.postgres.part().restart().await.unwrap();
        house.postgres.ready().await.unwrap();
        house.until_ready(json!({"status": "ok"})).await;
        assert_eq!(house.ask(path, &token).await.status, 200);
    });
}
