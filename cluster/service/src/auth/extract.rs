//! A handler that names [`Claims`] or [`Scoped`] cannot run without a valid token.

use std::marker::PhantomData;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::claims::Claims;
use super::scope::Scope;
use super::verifier::{AuthError, Verifier};
use crate::problem::Problem;

/// The caller, who holds the scope `S` asks for.
#[derive(Debug)]
pub struct Scoped<S> {
    /// Who it is.
    pub claims: Claims,
    scope: PhantomData<S>,
}

/// The token of the one `Authorization: Bearer` header. Two such headers are refused: which one a proxy in front
/// looked at cannot be known.
pub fn bearer(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(AuthError::Malformed);
    }
    let value = value.to_str().map_err(|_| AuthError::Malformed)?;
    let (scheme, token) = value.split_once(' ').ok_or(AuthError::Missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::Missing);
    }
    let token = token.trim();
    if token.is_empty() {
        Err(AuthError::Missing)
    } else {
        Ok(token)
    }
}

impl<S> FromRequestParts<S> for Claims
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?;
        Ok(Verifier::from_ref(state).verify(token).await?)
    }
}

impl<S, R> FromRequestParts<S> for Scoped<R>
where
    S: Send + Sync,
    R: Scope,
    Verifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let claims = Claims::from_request_parts(parts, state).await?;
        claims.require_any(R::ANY_OF)?;
        Ok(Self {
            claims,
            scope: PhantomData,
        })
    }
}
