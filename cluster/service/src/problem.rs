//! RFC 9457 error responses. The text of a 5xx is fixed: the cause goes to the log where it is handled, never to
//! the caller.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;

/// The media type of every error.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// One field of a request that is at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldError {
    /// Name of the parameter or property.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}

/// An error as the caller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    challenge: Option<&'static str>,
}

/// The body of every error response.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProblemBody {
    /// Always `about:blank`: the status code says what kind of problem it is.
    pub r#type: String,
    /// The status code in words.
    pub title: String,
    /// The status code.
    pub status: u16,
    /// What went wrong, for a person.
    pub detail: String,
    /// Present only where single fields are at fault.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// A problem with a reason of its own, for a status code that has no shorter way. Not for 5xx: their text is fixed.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            challenge: None,
        }
    }

    /// The problem of a status code alone, with fixed text.
    pub fn of(status: StatusCode) -> Self {
        let detail = match status {
            StatusCode::NOT_FOUND => "there is nothing at this path",
            StatusCode::METHOD_NOT_ALLOWED => "this path does not take this method",
            StatusCode::PAYLOAD_TOO_LARGE => "the body is too large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "the body has a media type that is not taken here",
            StatusCode::SERVICE_UNAVAILABLE => "the service cannot answer just now",
            StatusCode::GATEWAY_TIMEOUT => "the answer took too long",
            _ if status.is_server_error() => "the service failed to answer; its log has the cause",
            _ => "the request cannot be answered",
        };
        Self::new(status, detail)
    }

    /// 400 with a reason.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 400 because of one field.
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let (field, detail) = (field.into(), detail.into());
        Self::new(StatusCode::BAD_REQUEST, format!("{field} {detail}")).with_field(field, detail)
    }

    /// 404 with a reason.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 401 for a request without a token.
    pub fn no_token() -> Self {
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, "an access token is required");
        problem.challenge = Some("Bearer");
        problem
    }

    /// 401 for a token that is not accepted; `detail` is one of a few fixed texts.
    pub fn bad_token(detail: &str) -> Self {
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, detail);
        problem.challenge = Some(r#"Bearer error="invalid_token""#);
        problem
    }

    /// 403 that names the missing scope.
    pub fn missing_scope(scope: &str) -> Self {
        let mut problem = Self::new(StatusCode::FORBIDDEN, format!("scope {scope} is missing"));
        problem.challenge = Some(r#"Bearer error="insufficient_scope""#);
        problem
    }

    /// 500 with fixed text. Log the cause first.
    pub fn internal() -> Self {
        Self::of(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// 503 with fixed text; `retry_after` says when it is worth asking again.
    pub fn unavailable(retry_after: Duration) -> Self {
        let mut problem = Self::of(StatusCode::SERVICE_UNAVAILABLE);
        problem.retry_after = Some(retry_after);
        problem
    }

    /// Adds a field that is at fault.
    pub fn with_field(mut self, field: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(FieldError {
            field: field.into(),
            detail: detail.into(),
        });
        self
    }

    /// The status code.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The text for the caller.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let body = ProblemBody {
            r#type: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            errors: self.errors,
        };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}
