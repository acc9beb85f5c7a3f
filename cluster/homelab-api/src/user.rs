//! `/api/v1/user/info`: who the token says the caller is.

use axum::Json;
use chrono::{DateTime, Utc};
use serde::Serialize;
use service::Claims;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(info))
}

/// The caller.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserInfo {
    subject: String,
    username: Option<String>,
    name: Option<String>,
    scopes: Vec<String>,
    expires_at: DateTime<Utc>,
}

/// Who the token says the caller is.
#[utoipa::path(get, path = "/api/v1/user/info", tag = "user", security(("bearer" = [])),
    responses((status = 200, body = UserInfo)))]
async fn info(claims: Claims) -> Json<UserInfo> {
    Json(UserInfo {
        subject: claims.subject,
        username: claims.username,
        name: claims.name,
        scopes: claims.scopes.into_iter().collect(),
        expires_at: claims.expires_at,
    })
}
