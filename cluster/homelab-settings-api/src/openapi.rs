//! The service's own OpenAPI document, generated from the handlers.

use service::openapi::Bearer;
use service::problem::ProblemBody;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::Operation;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "homelab-settings-api", description = "Settings of the heat pump, plugs and their schedules.", license(name = "Apache-2.0")),
    components(schemas(ProblemBody)),
    modifiers(&Bearer)
)]
struct Document;

/// The document's frame, without paths.
pub(crate) fn document() -> OpenApi {
    Document::openapi()
}

/// Adds what every operation has, so that no handler has to repeat it: an id of its own and the problems it can answer.
pub(crate) fn with_problems(mut document: OpenApi) -> OpenApi {
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete]
            .into_iter()
            .flatten()
        {
            operation.operation_id = operation_id(operation);
            add_problems(operation);
        }
    }
    document
}

/// Handlers of different modules have the same name, ids of operations must differ: the module's tag goes before it.
fn operation_id(operation: &Operation) -> Option<String> {
    let tag = operation.tags.as_ref()?.first()?;
    Some(format!("{tag}_{}", operation.operation_id.as_ref()?))
}

fn add_problems(operation: &mut Operation) {
    let of_bodies = [
        ("413", "The body is larger than 64 KiB."),
        ("415", "The body is not `application/json`."),
    ];
    let has_body = operation.request_body.is_some();
    let common = [
        ("400", "A parameter or a field is wrong; `errors` names it."),
        ("401", "No valid access token."),
        ("403", "The token lacks the scope `detail` names."),
        (
            "503",
            "The database or the issuer's keys cannot be had just now; `Retry-After` says when to ask again.",
        ),
    ];
    let problems = common
        .into_iter()
        .chain(of_bodies.into_iter().filter(|_| has_body));
    service::openapi::add_problems(operation, problems);
}
