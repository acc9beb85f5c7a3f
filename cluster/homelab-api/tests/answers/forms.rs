//! Series as CSV, and what caches may do with them.

use reqwest::header::{ACCEPT, ETAG, HeaderMap, IF_NONE_MATCH};
use serde_json::Value;
use stack::issuer::ALL_SCOPES;

use crate::{House, with_house};

const OLD: &str = "from=2026-04-10T12:00:00Z&to=2026-04-10T13:00:00Z";

/// Every path that answers a series, with one item of a device `forms`.
const SERIES: [&str; 8] = [
    "/api/v1/energy/history?device_id=forms&from=2026-04-10T12:00:00Z&to=2026-04-10T13:00:00Z",
    "/api/v1/energy/daily-summary?device_id=forms&from=2026-04-09T00:00:00Z&to=2026-04-11T00:00:00Z",
    "/api/v1/energy/monthly-summary?device_id=forms&from=2026-03-01T00:00:00Z&to=2026-05-01T00:00:00Z",
    "/api/v1/energy/yearly-summary?device_id=forms&from=2025-01-01T00:00:00Z&to=2026-05-01T00:00:00Z",
    "/api/v1/heatpump/history?device_id=forms&from=2026-04-10T12:00:00Z&to=2026-04-10T13:00:00Z",
    "/api/v1/heatpump/daily-summary?device_id=forms&from=2026-04-09T00:00:00Z&to=2026-04-11T00:00:00Z",
    "/api/v1/temperature/history?device_id=forms&from=2026-04-10T12:00:00Z&to=2026-04-10T13:00:00Z",
    "/api/v1/plugs/forms/history?from=2026-04-10T12:00:00Z&to=2026-04-10T13:00:00Z",
];

async fn ask(
    house: &House,
    path: &str,
    headers: &[(reqwest::header::HeaderName, &str)],
) -> (u16, HeaderMap, String) {
    let mut request = house
        .client
        .get(format!("{}{path}", house.url))
        .bearer_auth(house.issuer.good(ALL_SCOPES));
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    (status, headers, answer.text().await.unwrap())
}

async fn fill(house: &House) {
    for (table, columns, values) in [
        ("energy_consumption", "power_w, energy_wh", "1000, 5000"),
        (
            "temperature_sensors",
            "temperature_c, location",
            "21.5, 'attic, \"east\"'",
        ),
        ("heatpump_status", "outdoor_c", "-4"),
        ("plug_status", "\"on\"", "true"),
    ] {
        house
            .sql(&format!(
                "insert into {table} (device_id, time, id, agent, clock, {columns})
                 values ('forms', '2026-04-10 12:00:10+00', 'forms', 'p0', 'synced', {values}) on conflict do nothing"
            ))
            .await;
    }
}

#[test]
fn every_series_is_had_as_csv_with_the_names_of_its_json() {
    with_house(async |house| {
        fill(house).await;
        for path in SERIES {
            let items = house.get(path).await["items"].clone();
            let item = items[0]
                .as_object()
                .unwrap_or_else(|| panic!("{path} has no item"));
            let (status, headers, text) = ask(house, path, &[(ACCEPT, "text/csv")]).await;
            assert_eq!(status, 200, "{path}: {text}");
            assert_eq!(
                headers["content-type"], "text/csv; charset=utf-8; header=present",
                "{path}"
            );
            let mut reader = csv::Reader::from_reader(text.as_bytes());
            let mut names: Vec<_> = reader.headers().unwrap().iter().map(str::to_owned).collect();
            let lines: Vec<_> = reader.records().map(Result::unwrap).collect();
            assert_eq!(lines.len(), items.as_array().unwrap().len(), "{path}");
            for (name, got) in names.iter().zip(&lines[0]) {
                let same = match &item[name] {
                    Value::Null => got.is_empty(),
                    Value::String(text) => got == text,
                    Value::Number(number) => got.parse::<f64>().ok() == number.as_f64(),
                    Value::Bool(state) => got.parse() == Ok(*state),
                    _ => false,
                };
                assert!(same, "{path}: {name} is {got} in CSV and {} in JSON", item[name]);
            }
            names.sort();
            assert_eq!(names, item.keys().cloned().collect::<Vec<_>>(), "{path}");
        }
        let (_, _, nothing) = ask(
            house,
            &format!("/api/v1/plugs/absent/history?{OLD}"),
            &[(ACCEPT, "text/csv")],
        )
        .await;
        assert_eq!(
            nothing,
            "start,end,energy_kwh,average_power_w,on_hours,count,estimated\r\n"
        );
        let wrong = ask(house, "/api/v1/energy/history?from=x", &[(ACCEPT, "text/csv")]).await;
        assert_eq!(
            (wrong.0, &wrong.1["content-type"]),
            (400, &"application/problem+json".parse().unwrap())
        );
    });
}

#[test]
fn what_the_caller_has_is_not_sent_again() {
    with_house(async |house| {
        fill(house).await;
        for path in SERIES {
            let (status, headers, _) = ask(house, path, &[]).await;
            assert_eq!(status, 200, "{path}");
            assert_eq!(
                headers["cache-control"], "private, max-age=3600",
                "{path} is past"
            );
            assert!(
                headers["vary"]
                    .to_str()
                    .unwrap()
                    .contains("accept, authorization"),
                "{path}: {headers:?}"
            );
            let tag = headers[ETAG].to_str().unwrap().to_owned();
            for known in [
                tag.clone(),
                format!("\"other\", {tag}"),
                "*".to_owned(),
                tag.replace("W/", ""),
            ] {
                let (status, headers, body) = ask(house, path, &[(IF_NONE_MATCH, &known)]).await;
                assert_eq!((status, body.as_str()), (304, ""), "{path} {known}");
                assert_eq!(headers[ETAG].to_str().unwrap(), tag, "{path}");
            }
            let (status, _, _) = ask(house, path, &[(IF_NONE_MATCH, "\"other\"")]).await;
            assert_eq!(status, 200, "{path}");
            let (status, _, _) = ask(house, path, &[(IF_NONE_MATCH, &tag), (ACCEPT, "text/csv")]).await;
            assert_eq!(status, 200, "{path}: the CSV is another thing");
        }
        let path = SERIES[6];
        let (_, before, _) = ask(house, path, &[]).await;
        house
            .sql(
                "insert into temperature_sensors (device_id, time, id, agent, clock, temperature_c)
                 values ('forms', '2026-04-10 12:30:00+00', 'late', 'p0', 'synced', 1)",
            )
            .await;
        let (status, after, _) = ask(house, path, &[(IF_NONE_MATCH, before[ETAG].to_str().unwrap())]).await;
        assert_eq!(status, 200, "a late reading changes the past");
        assert_ne!(before[ETAG], after[ETAG]);
        house
            .sql("delete from temperature_sensors where id = 'late'")
            .await;
        let (_, running, _) = ask(house, "/api/v1/energy/history", &[]).await;
        assert_eq!(running["cache-control"], "private, no-cache");
    });
}
