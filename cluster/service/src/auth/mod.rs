//! Who a caller is: access tokens (JWT) of the configured OIDC issuers.
//!
//! RS256, ES256 and EdDSA only. The signature is checked with the issuer's published keys, then `iss`, `aud`, `exp`
//! and `nbf`. A key serves only tokens whose algorithm fits it, so a public key is never taken for a shared secret.
//! Nothing but the `Authorization` header is read: no header a proxy sets is believed, and no token is logged.

mod claims;
mod extract;
mod issuer;
mod keys;
pub mod scope;
mod settings;
mod verifier;

pub use claims::Claims;
pub use extract::{Scoped, bearer};
pub use settings::{AuthSettings, IssuerSettings, Pace};
pub use verifier::{AuthError, LEEWAY, Verifier};
