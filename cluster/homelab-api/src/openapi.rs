//! The service's own OpenAPI document, generated from the handlers.

use service::openapi::Bearer;
use service::problem::ProblemBody;
use utoipa::OpenApi as _;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{OpenApi, RefOr};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "homelab-api", description = "What the house measured. Read only.", license(name = "Apache-2.0")),
    components(schemas(ProblemBody)),
    modifiers(&Bearer)
)]
struct Document;

/// The document's frame, without paths.
pub(crate) fn document() -> OpenApi {
    Document::openapi()
}

/// Adds what every path has, so that no handler has to repeat it: an id of its own and the problems it can answer.
pub(crate) fn with_problems(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        if let Some(operation) = &mut item.get {
            operation.operation_id = Some(operation_id(path));
            add_problems(operation);
        }
    }
    document
}

/// The path in words: handlers of different modules have the same name, ids of operations must differ.
fn operation_id(path: &str) -> String {
    let words: Vec<_> = path
        .trim_start_matches("/api/v1/")
        .split(['/', '-'])
        .filter(|word| !word.starts_with('{'))
        .collect();
    words.join("_")
}

/// Every field of an answer is always there, reported or not: only a problem leaves out what it does not have.
pub(crate) fn with_every_field(mut document: OpenApi) -> OpenApi {
    let schemas = document.components.iter_mut().flat_map(|c| c.schemas.iter_mut());
    for (name, schema) in schemas {
        if let RefOr::T(Schema::Object(object)) = schema
            && name != "ProblemBody"
        {
            object.required = object.properties.keys().cloned().collect();
        }
    }
    document
}

fn add_problems(operation: &mut Operation) {
    let problems = [
        ("400", "A parameter is wrong; `errors` names it."),
        ("401", "No valid access token."),
        ("403", "The token lacks the scope `detail` names."),
        ("500", "A fault of the service; its log has the cause."),
        (
            "503",
            "The database or the issuer's keys cannot be had just now; `Retry-After` says when to ask again.",
        ),
    ];
    service::openapi::add_problems(operation, problems);
}
