//! What energy costs, by prices that change within the day. Computed by hand.

use serde_json::Value;

use crate::{House, house};

/// 100 W are 100 Wh an hour: a reading every 5 minutes from 2026-03-10 00:00 to 2026-03-11 00:00, both local.
fn steady_meter(device: &str) -> String {
    format!(
        "insert into energy_consumption (device_id, time, id, agent, clock, power_w, energy_wh)
         select '{device}', timestamptz '2026-03-09 22:55:00+00' + n * interval '5 minutes', '{device}/' || n, 'p0',
             'synced', 100, 7000 + n * 100.0 / 12
         from generate_series(0, 24 * 12 + 1) as n"
    )
}

async fn first(house: &House, path: &str) -> (Option<f64>, Option<f64>, Option<String>) {
    let body = house.get(path).await;
    let item = &body["items"][0];
    (
        item["energy_kwh"].as_f64(),
        item["cost"].as_f64(),
        item["currency"].as_str().map(str::to_owned),
    )
}

fn near(got: Option<f64>, want: f64) -> bool {
    got.is_some_and(|got| (got - want).abs() < 1e-9)
}

#[test]
fn each_quarter_costs_what_it_did_then() {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let house = house().await;
        house.sql(&steady_meter("m")).await;
        let day = "/api/v1/energy/daily-summary?device_id=m&from=2026-03-09T23:00:00Z&to=2026-03-10T23:00:00Z";
        let hour = |hour: u32| {
            format!("/api/v1/energy/history?device_id=m&from=2026-03-10T{hour:02}:00:00Z&to=2026-03-10T{:02}:00:00Z", hour + 1)
        };

        let (energy, cost, currency) = first(&house, day).await;
        assert!(near(energy, 2.4), "{energy:?}");
        assert_eq!((cost, currency), (None, None), "no price is known");

        // Until 11:30 UTC 1 a kWh, until 11:45 10, from there 2 without an end: 12.5 h, 0.25 h and 11.25 h of 0.1 kWh.
        // The reading at a quarter's very start belongs to it with what was gained in the five minutes before.
        house
            .sql(
                "insert into energy_prices values
                    ('2026-03-09 23:00:00+00', '2026-03-10 11:30:00+00', 1, 'SEK'),
                    ('2026-03-10 11:30:00+00', '2026-03-10 11:45:00+00', 10, 'SEK'),
                    ('2026-03-10 11:45:00+00', null, 2, 'SEK')",
            )
            .await;
        let want = 1.25 + 0.25 + 2.25;
        let (energy, cost, currency) = first(&house, day).await;
        assert!(near(energy, 2.4) && near(cost, want), "{energy:?} {cost:?}");
        assert_eq!(currency.as_deref(), Some("SEK"));
        for (at, want) in [(10, 0.1), (11, 0.05 + 0.25 + 0.05), (12, 0.2)] {
            let (_, cost, _) = first(&house, &hour(at)).await;
            assert!(near(cost, want), "{at}: {cost:?}");
        }
        let hours = house
            .get("/api/v1/energy/history?device_id=m&from=2026-03-09T23:00:00Z&to=2026-03-10T23:00:00Z")
            .await;
        let sum: f64 = hours["items"].as_array().unwrap().iter().map(|item| item["cost"].as_f64().unwrap()).sum();
        assert!(near(Some(sum), want), "hours add up to the day: {sum}");
        for period in ["monthly", "yearly"] {
            let path = format!("/api/v1/energy/{period}-summary?device_id=m&from=2025-12-31T23:00:00Z&to=2026-12-31T00:00:00Z");
            let (_, cost, _) = first(&house, &path).await;
            // The first reading after midnight is in the next day, and in the same month.
            assert!(near(cost, want + 2.0 * 0.1 / 12.0), "{period}: {cost:?}");
        }

        // A price that begins within a quarter counts from the next quarter on.
        house
            .sql(
                "update energy_prices set valid_to = '2026-03-10 11:37:00+00' where valid_from = '2026-03-10 11:30:00+00';
                 update energy_prices set valid_from = '2026-03-10 11:37:00+00' where valid_to is null",
            )
            .await;
        let (_, cost, _) = first(&house, day).await;
        assert!(near(cost, want), "{cost:?}");

        // A quarter without a price has no cost, nor has its hour or its day; the hours beside it have.
        house.sql("update energy_prices set valid_from = '2026-03-10 12:00:00+00' where valid_to is null").await;
        assert_eq!(first(&house, day).await.1, None);
        assert_eq!(first(&house, &hour(11)).await.1, None);
        assert!(near(first(&house, &hour(12)).await.1, 0.2));
        assert!(near(first(&house, &hour(10)).await.1, 0.1));

        // Nor is a sum of two currencies one.
        house
            .sql("update energy_prices set valid_from = '2026-03-10 11:45:00+00', currency = 'EUR' where valid_to is null")
            .await;
        assert_eq!(first(&house, day).await, (energy, None, None));
        let (_, cost, currency) = first(&house, &hour(12)).await;
        assert!(near(cost, 0.2) && currency.as_deref() == Some("EUR"));
    });
}

#[test]
fn resets_new_meters_and_several_meters_cost_what_was_counted() {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let house = house().await;
        // One meter is reset at 10:20 and replaced at 10:50, with a slip back in between; the other counts steadily.
        house
            .sql(
                "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh, meter_id)
                 select 'a', ('2026-03-10 ' || at || '+00')::timestamptz, 'a/' || at, 'p0', 'synced', wh, meter
                 from (values ('09:59', 1000, 'A'), ('10:05', 1100, 'A'), ('10:20', 40, 'A'), ('10:31', 30, 'A'), ('10:40', 50, 'A'),
                       ('10:50', 9000, 'B'), ('10:55', 9200, 'B')) as r (at, wh, meter);
                 insert into energy_consumption (device_id, time, id, agent, clock, energy_wh)
                 select 'b', ('2026-03-10 ' || at || '+00')::timestamptz, 'b/' || at, 'p0', 'synced', wh
                 from (values ('09:59', 0), ('10:10', 1000), ('10:40', 3000)) as r (at, wh);
                 insert into energy_meters values ('a', 'main'), ('b', 'main');
                 insert into energy_prices values
                    ('2026-03-10 10:00:00+00', '2026-03-10 10:15:00+00', 1, 'SEK'),
                    ('2026-03-10 10:15:00+00', '2026-03-10 10:30:00+00', 10, 'SEK'),
                    ('2026-03-10 10:30:00+00', '2026-03-10 10:45:00+00', 100, 'SEK'),
                    ('2026-03-10 10:45:00+00', '2026-03-10 11:00:00+00', 1000, 'SEK')",
            )
            .await;
        let path = "/api/v1/energy/history?from=2026-03-10T10:00:00Z&to=2026-03-10T11:00:00Z";
        let (energy, cost, _) = first(&house, path).await;
        // a: 100 Wh at 1, 40 after the reset at 10, 10 past the slip at 100, 200 of the new meter at 1,000.
        let a = [0.1, 0.4, 1.0, 200.0];
        // b: 1,000 Wh at 1, 2,000 Wh counted at 10:40 at 100.
        let b = [1.0, 200.0];
        assert!(near(energy, 3.35), "{energy:?}");
        assert!(near(cost, a.iter().chain(&b).sum()), "{cost:?}");

        let live: Value = house.get("/api/v1/energy/hourly-total").await;
        assert_eq!((&live["energy_kwh"], &live["cost"]), (&Value::Null, &Value::Null));
        house
            .sql(
                "insert into energy_prices values ('2026-06-01 00:00:00+00', null, 3, 'SEK');
                 insert into energy_consumption (device_id, time, id, agent, clock, energy_wh)
                 select 'live', date_trunc('hour', now()) + s * interval '1 second', 'l/' || s, 'p0', 'synced', s * 500
                 from generate_series(0, 1) as s",
            )
            .await;
        let live = house.get("/api/v1/energy/hourly-total?device_id=live").await;
        assert_eq!((&live["cost"], &live["currency"]), (&serde_json::json!(1.5), &serde_json::json!("SEK")));
    });
}
