//! The OpenAPI document as a snapshot: what a client is told changes only on purpose.

/// `UPDATE_OPENAPI=1 cargo test -p homelab-settings-api --test openapi` writes the file anew.
#[test]
fn the_document_is_as_written_down() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let document = homelab_settings_api::openapi().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        document == written,
        "the document has changed: look at it, then update {path}"
    );
}

#[test]
fn every_operation_has_its_own_id_and_names_its_scope_and_its_problems() {
    let document = serde_json::to_value(homelab_settings_api::openapi()).unwrap();
    let mut operations = 0;
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations += 1;
            let id = operation["operationId"].as_str().unwrap();
            assert!(
                ids.insert(id),
                "{method} {path}: the id {id} is another operation's"
            );
            let scope = operation["security"][0]["bearer"][0].as_str().unwrap();
            let want = if method == "get" { "read:" } else { "write:" };
            assert!(scope.starts_with(want), "{method} {path}: {scope}");
            for status in ["400", "401", "403", "503"] {
                assert!(
                    operation["responses"][status].is_object(),
                    "{method} {path}: {status}"
                );
            }
            assert!(
                operation["summary"].is_string() || operation["description"].is_string(),
                "{method} {path}"
            );
        }
    }
    assert_eq!(operations, 15);
}
