//! Hostile parameters, in every field of every path: an answer or a problem that names the field, never a failure.

use serde_json::Value;
use stack::issuer::ALL_SCOPES;

use crate::with_house;

/// Percent-encoded by the client, so these are what the service reads.
const VALUES: [&str; 34] = [
    "",
    " ",
    "\0",
    "a\0b",
    "%00",
    "NaN",
    "-Infinity",
    "0",
    "-1",
    "1e308",
    "99999999999999999999999999",
    "0000-01-01T00:00:00Z",
    "0000-00-00T00:00:00Z",
    "-9999-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:60.999999999Z",
    "+262142-12-31T23:59:59Z",
    "2016-12-31T23:59:60Z",
    "2200-12-31T23:59:59.999999999Z",
    "1970-01-01T00:00:00Z",
    "2026-03-29T02:30:00+01:00",
    "2026-02-30T00:00:00Z",
    "2026-01-01T00:00:00+99:99",
    "infinity",
    "now",
    "'; drop table energy_consumption; --",
    "' or '1'='1",
    "1); select pg_sleep(60); --",
    "\\x00{\"a\":[]}",
    "$1",
    "\u{e5}\u{4e2d}\u{1f321}\u{fe0f}",
    "\u{202e}\u{200d}\u{feff}",
    "../../etc/passwd",
    "<script>alert(1)</script>",
];

#[test]
fn hostile_values_in_every_field_are_answered_or_refused() {
    with_house(async |house| {
        let document = serde_json::to_value(homelab_api::openapi()).unwrap();
        let token = house.issuer.good(ALL_SCOPES);
        let long = "\u{e5}".repeat(4_000);
        let tables = "select count(*) from pg_class where relkind in ('r', 'v', 'm')";
        let before = house.postgres.psql("telemetry", tables).await.unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            let Some(parameters) = item["get"]["parameters"].as_array() else {
                continue;
            };
            for parameter in parameters {
                let name = parameter["name"].as_str().unwrap();
                for value in VALUES.into_iter().chain([long.as_str()]) {
                    let mut url = reqwest::Url::parse(&house.url).unwrap();
                    if parameter["in"] == "path" {
                        if value.is_empty() {
                            // An empty segment is another path.
                            continue;
                        }
                        url.path_segments_mut().unwrap().extend(
                            path[1..]
                                .split('/')
                                .map(|part| if part.starts_with('{') { value } else { part }),
                        );
                    } else {
                        url.set_path(&path.replace("{device_id}", "x"));
                        url.query_pairs_mut().append_pair(name, value);
                    }
                    let what = format!("{path} {name}={value:.40}");
                    let response = house.client.get(url).bearer_auth(&token).send().await.unwrap();
                    let status = response.status().as_u16();
                    let form = response.headers()["content-type"].clone();
                    let body: Value = response.json().await.unwrap();
                    match status {
                        200 => assert_eq!(form, "application/json", "{what}"),
                        // A path of dots is another path.
                        404 if parameter["in"] == "path" => {
                            assert_eq!(form, "application/problem+json", "{what}")
                        }
                        400 => {
                            assert_eq!(form, "application/problem+json", "{what}");
                            assert_eq!(body["errors"][0]["field"], name, "{what}: {body}");
                        }
                        other => panic!("{what} is answered {other}: {body}"),
                    }
                }
            }
        }
        let after = house.postgres.psql("telemetry", tables).await.unwrap();
        assert_eq!(before, after);
    });
}

#[test]
fn ranges_at_every_edge_are_answered_or_refused() {
    with_house(async |house| {
        let token = house.issuer.good(ALL_SCOPES);
        let ends = [
            "0000-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00Z",
            "2016-01-01T00:00:00Z",
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:00:00.000001Z",
            "2200-12-31T23:59:59Z",
            "9999-12-31T23:59:59Z",
        ];
        for path in [
            "/api/v1/energy/history",
            "/api/v1/energy/daily-summary",
            "/api/v1/energy/monthly-summary",
            "/api/v1/energy/yearly-summary",
            "/api/v1/heatpump/history",
            "/api/v1/heatpump/daily-summary",
            "/api/v1/temperature/history",
            "/api/v1/plugs/x/history",
            "/api/v1/events",
        ] {
            for (first, from) in ends.into_iter().enumerate() {
                for (second, to) in ends.into_iter().enumerate() {
                    let answer = house.ask(&format!("{path}?from={from}&to={to}"), &token).await;
                    let known = ["19", "20", "22"];
                    let outside =
                        |end: &str| !known.iter().any(|c| end.starts_with(c)) || end.starts_with("1969");
                    // 10 years and more are too long for everything that is not by month or year.
                    let decade = from < "2017" && to > "2025" || from < "1971" && to > "2015";
                    let by_month = path.contains("monthly") || path.contains("yearly");
                    if first >= second || outside(from) || outside(to) || (decade && !by_month) {
                        assert_eq!(answer.status, 400, "{path} {from} {to}: {}", answer.body);
                    } else {
                        assert!(
                            matches!(answer.status, 200 | 400),
                            "{path} {from} {to}: {}",
                            answer.body
                        );
                    }
                }
            }
        }
    });
}
