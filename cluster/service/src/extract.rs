//! axum's extractors with problem responses in place of plain text.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// Parameters of the query. Unknown ones are ignored unless the type refuses them.
#[derive(Debug)]
pub struct Query<T>(pub T);

/// Parameters of the path.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            // The text of the rejection is serde's: it names the field and what was expected of it.
            Err(QueryRejection::FailedToDeserializeQueryString(error)) => Err(Problem::bad_request(format!(
                "the query cannot be read: {}",
                innermost(&error)
            ))),
            Err(_) => Err(Problem::bad_request("the query cannot be read")),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => Err(Problem::bad_request(format!(
                "the path cannot be read: {}",
                error.body_text()
            ))),
            Err(error) => {
                tracing::error!("a handler asks for path parameters its route does not have: {error}");
                Err(Problem::internal())
            }
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(JsonRejection::JsonDataError(error)) => Err(Problem::bad_request(format!(
                "the body cannot be read: {}",
                innermost(&error)
            ))),
            Err(JsonRejection::JsonSyntaxError(_)) => Err(Problem::bad_request("the body is not JSON")),
            Err(error) => Err(Problem::of(error.status())),
        }
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
