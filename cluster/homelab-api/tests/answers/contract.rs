//! schemathesis against the real service: no 5xx, and nothing that its own OpenAPI document does not allow.

use std::process::Stdio;

use stack::issuer::ALL_SCOPES;

use crate::house;

#[test]
fn schemathesis_finds_nothing() {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let house = house().await;
        // Something of every kind, now and in the past, so that answers have items whose shape can be checked.
        for (table, columns, values) in [
            ("energy_consumption", "power_w, energy_wh", "1000 + n, 5000 + n"),
            ("temperature_sensors", "temperature_c, location", "20, 'attic'"),
            ("heatpump_status", "outdoor_c, compressor_on", "-4, n % 2 = 0"),
            ("plug_status", "\"on\", energy_wh", "true, n"),
        ] {
            house
                .sql(&format!(
                    "insert into {table} (device_id, time, id, agent, clock, {columns})
                     select 'c-' || d, d + n * interval '1 minute', '{table}/' || d || n, 'p0', 'synced', {values}
                     from unnest(array[now() - interval '5 hours', '2026-01-01', '1999-12-31 23:00:00+00']) as d,
                         generate_series(0, 200) as n"
                ))
                .await;
        }
        house
            .sql(
                "insert into energy_prices values ('2020-01-01 00:00:00+00', null, 1.5, 'SEK');
                 insert into events (time, id, type, agent, details)
                 values (now() - interval '1 hour', 'c', 'buffer_loss', 'p0', '{\"count\": 3}')",
            )
            .await;
        let script = stack::binaries::root().join("tests/contract/run.sh");
        let output = tokio::process::Command::new(script)
            .arg(&house.url)
            .env("API_TOKEN", house.issuer.good(ALL_SCOPES))
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{}\n{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        // That it asked: a run that finds no paths would find no fault either.
        assert!(text(&output.stdout).contains("No issues found"), "{}", text(&output.stdout));
    });
}
