//! Who may call what, and what each path answers.

use super::*;

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
        assert_eq!(missing_from_the_table(), Vec::<String>::new());
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

/// Operations of the OpenAPI document that the table above forgets.
fn missing_from_the_table() -> Vec<String> {
    let document = serde_json::to_value(homelab_settings_api::openapi()).unwrap();
    let levels_match = |template: &str, path: &str| {
        let (template, path) = (template.split('/'), path.split('/'));
        template.clone().count() == path.clone().count()
            && template.zip(path).all(|(t, p)| t == p || t.starts_with('{'))
    };
    let mut missing = Vec::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let there = ENDPOINTS
                .iter()
                .any(|(m, path, _)| m.eq_ignore_ascii_case(method) && levels_match(template, path));
            if !there {
                missing.push(format!("{method} {template}"));
            }
        }
    }
    missing
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
