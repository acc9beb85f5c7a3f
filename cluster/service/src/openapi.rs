//! What the OpenAPI documents of the services have in common: the bearer scheme, problem responses, and how a document is
//! answered. Which problems an operation has is for its service to say.

use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get};
use utoipa::Modify;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, Response, ResponseBuilder};

use crate::problem;

/// Adds the security scheme `bearer` to a document.
pub struct Bearer;

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

/// Adds problem responses to an operation: status codes with their descriptions. The document has the schema `ProblemBody`.
pub fn add_problems<'a>(operation: &mut Operation, problems: impl IntoIterator<Item = (&'a str, &'a str)>) {
    for (status, description) in problems {
        operation
            .responses
            .responses
            .insert(status.to_owned(), problem_response(description).into());
    }
}

fn problem_response(description: &str) -> Response {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("ProblemBody")))
        .build();
    ResponseBuilder::new()
        .description(description)
        .content(problem::CONTENT_TYPE, content)
        .build()
}

/// Answers a document that is written already; it changes with the service's version only.
pub fn answer<S: Clone + Send + Sync + 'static>(document: String) -> MethodRouter<S> {
    get(move || async move {
        (
            [
                (header::CONTENT_TYPE, "application/json"),
                (header::CACHE_CONTROL, "max-age=300"),
            ],
            document,
        )
            .into_response()
    })
}
