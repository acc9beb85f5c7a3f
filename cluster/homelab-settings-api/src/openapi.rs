//! The service's own OpenAPI document, generated from the handlers.

use service::problem::ProblemBody;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, Response, ResponseBuilder};
use utoipa::{Modify, OpenApi as _};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "homelab-settings-api", description = "Settings of the heat pump, plugs and their schedules.", license(name = "Apache-2.0")),
    components(schemas(ProblemBody)),
    modifiers(&Bearer)
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The document's frame, without paths.
pub(crate) fn document() -> OpenApi {
    Document::openapi()
}

/// Adds the problem responses every path can answer, so that no handler has to repeat them.
pub(crate) fn with_problems(mut document: OpenApi) -> OpenApi {
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete]
            .into_iter()
            .flatten()
        {
            add_problems(operation);
        }
    }
    document
}

fn add_problems(operation: &mut Operation) {
    for (status, description) in [
        ("400", "A parameter or a field is wrong; `errors` names it."),
        ("401", "No valid access token."),
        ("403", "The token lacks the scope `detail` names."),
        (
            "503",
            "The database or the issuer's keys cannot be had just now; `Retry-After` says when to ask again.",
        ),
    ] {
        operation
            .responses
            .responses
            .insert(status.to_owned(), problem(description).into());
    }
}

fn problem(description: &str) -> Response {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("ProblemBody")))
        .build();
    ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content)
        .build()
}
