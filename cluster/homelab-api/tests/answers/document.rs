//! The OpenAPI document: complete, and the one that is committed, from which the web page's types are made.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

/// Set to write the file in place of comparing it: `UPDATE_OPENAPI=1 cargo test -p homelab-api document`, then
/// `npm --prefix cluster/heatpump-web run generate-types`.
const UPDATE: &str = "UPDATE_OPENAPI";

#[test]
fn the_committed_document_is_the_services_own() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let mut document = homelab_api::openapi().to_pretty_json().unwrap();
    document.push('\n');
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(document.lines()).position(|(a, b)| a != b);
    assert!(
        committed == document,
        "openapi.json differs from line {:?} on; if the change is meant: {UPDATE}=1 cargo test -p homelab-api document",
        differs.map(|line| line + 1)
    );
}

#[test]
fn the_document_has_every_path_and_every_answer() {
    let document = serde_json::to_value(homelab_api::openapi()).unwrap();
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        paths,
        [
            "/api/v1/devices",
            "/api/v1/energy/daily-summary",
            "/api/v1/energy/history",
            "/api/v1/energy/hourly-total",
            "/api/v1/energy/latest",
            "/api/v1/energy/monthly-summary",
            "/api/v1/energy/yearly-summary",
            "/api/v1/events",
            "/api/v1/heatpump/daily-summary",
            "/api/v1/heatpump/history",
            "/api/v1/heatpump/latest",
            "/api/v1/plugs/{device_id}/history",
            "/api/v1/temperature/all-latest",
            "/api/v1/temperature/history",
            "/api/v1/temperature/latest",
            "/api/v1/user/info",
        ]
    );
    let mut ids = HashSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let operation = &item["get"];
        assert!(
            ids.insert(operation["operationId"].as_str().unwrap()),
            "{path}: an id is used once"
        );
        let answers = &operation["responses"];
        assert!(
            answers["200"]["content"]["application/json"].is_object(),
            "{path}"
        );
        let series = path.ends_with("/history") || path.ends_with("-summary");
        assert_eq!(
            answers["200"]["content"]["text/csv"].is_object(),
            series,
            "{path}"
        );
        assert_eq!(answers["304"].is_object(), series, "{path}");
        for status in ["400", "401", "403", "500", "503"] {
            assert!(
                answers[status]["content"]["application/problem+json"].is_object(),
                "{path} {status}"
            );
        }
        assert!(
            operation["summary"].is_string() && operation["security"].is_array(),
            "{path}"
        );
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        if name == "ProblemBody" {
            continue;
        }
        let properties = schema["properties"].as_object().map_or(0, |p| p.len());
        let required = schema["required"].as_array().map_or(0, Vec::<Value>::len);
        assert!(
            properties > 0 && properties == required,
            "{name}: every field is always answered"
        );
    }
}
