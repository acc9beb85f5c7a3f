//! The HTTP client of the tests and the smoke run.

use std::sync::Once;
use std::time::Duration;

use anyhow::Result;

/// A client that gives up after this long tells more than one that waits for ever.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// A client for the stack's parts.
///
/// # Errors
/// When it cannot be built.
pub fn client() -> Result<reqwest::Client> {
    // Everything here is plain HTTP on 127.0.0.1, but the client wants to know its TLS provider all the same.
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
    });
    Ok(reqwest::Client::builder().timeout(ANSWER_WITHIN).build()?)
}
