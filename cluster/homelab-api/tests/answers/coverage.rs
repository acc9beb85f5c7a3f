//! Who may see which devices and events, and which path asks for which scope.

use super::*;

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
            assert_eq!(status_without_a_token(house, path).await, 401, "{path}");
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
            assert_eq!(status_without_a_token(house, path).await, 200, "{path}");
        }
        assert_eq!(
            status_without_a_token(house, "/metrics").await,
            404,
            "metrics are on the admin port only"
        );
    });
}

async fn status_without_a_token(house: &House, path: &str) -> reqwest::StatusCode {
    let request = house.client.get(format!("{}{path}", house.url));
    request.send().await.unwrap().status()
}
