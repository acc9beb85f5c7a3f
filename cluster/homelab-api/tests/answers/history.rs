//! Histories: meters by hour to year, temperatures, heat pump and plugs.

use super::*;

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
fn a_device_whose_time_was_never_known_is_there() {
    with_house(async |house| {
        house
            .sql(
                "insert into temperature_sensors (device_id, time, id, agent, clock, temperature_c)
                 values ('timeless', '2020-02-02', 'a', 'p0', 'unsynced', 21.5)",
            )
            .await;
        for path in ["/api/v1/temperature/all-latest", "/api/v1/devices"] {
            let all = house.get(path).await;
            let items = all["items"].as_array().unwrap();
            let item = items.iter().find(|item| item["device_id"] == "timeless");
            assert!(item.is_some(), "{path}");
        }
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
        assert!(
            hours["items"][0]["aux_3kw_share"].is_null(),
            "it was never reported"
        );

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
