//! The OpenID provider (`oidc/server.mjs`): discovery, keys, the demo user's login page and JWT access tokens.
//!
//! Issuer and pages have one address for browser and services. It knows one person, `demo`, and nobody's real password.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::binaries::node_command;
use crate::{http, part::Part, port};
use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The demo user's name, and its password.
pub const DEMO_USER: &str = "demo";
/// The demo user's password.
pub const DEMO_PASSWORD: &str = "demo";
/// The public client of the web page.
pub const WEB_CLIENT: &str = "heatpump-web";
/// The audience of every access token it gives.
pub const AUDIENCE: &str = "homelab";
/// Every scope of docs/API.md.
pub const SCOPES: [&str; 7] = [
    "read:energy",
    "read:heatpump",
    "read:temperature",
    "read:plugs",
    "read:settings",
    "write:settings",
    "write:plugs",
];

const SERVICE_CLIENT: &str = "homelab-service";
/// Node starts in half a second; on a busy two-core machine in several.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A running provider.
#[derive(Debug)]
pub struct Oidc {
    issuer: String,
    address: SocketAddr,
    service_secret: String,
    part: Part,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
}

impl Oidc {
    /// Starts it for a web page served from `web_origins`; `folder` keeps its signing keys.
    ///
    /// # Errors
    /// When node or its packages are missing, or it does not start.
    pub async fn start(folder: &Path, web_origins: &[String]) -> Result<Oidc> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("oidc");
        if !program.join("node_modules").is_dir() {
            bail!(
                "the OpenID provider's packages are missing: npm ci --prefix tests/stack/oidc, or run make setup"
            );
        }
        let address = port::free()?;
        let service_secret = format!("{:032x}", rand::random::<u128>());
        std::fs::create_dir_all(folder)?;
        let mut node = node_command("node")?;
        node.arg(program.join("server.mjs"))
            .env("OIDC_PORT", address.port().to_string())
            .env("OIDC_WEB_ORIGINS", web_origins.join(","))
            .env("OIDC_CLIENT_SECRET", &service_secret)
            .env("OIDC_KEYS_FILE", folder.join("keys.json"));
        let part = Part::start("oidc", node)
            .await
            .context("node is missing: run make setup")?;
        let oidc = Oidc {
            issuer: format!("http://{address}"),
            address,
            service_secret,
            part,
        };
        oidc.ready().await?;
        Ok(oidc)
    }

    /// Waits until it answers, after a restart for instance.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ready(&self) -> Result<()> {
        self.part
            .ready_http(READY_WITHIN, self.address, "/.well-known/openid-configuration")
            .await
    }

    /// The issuer's URL, exactly as its tokens name it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Its process.
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// An access token with these scopes, as a service gets one (client credentials).
    ///
    /// # Errors
    /// When the provider refuses.
    pub async fn token(&self, scopes: &[&str]) -> Result<String> {
        let scope = scopes.join(" ");
        let answer = http::client()?
            .post(format!("{}/token", self.issuer))
            .basic_auth(SERVICE_CLIENT, Some(&self.service_secret))
            .form(&[("grant_type", "client_credentials"), ("scope", &scope)])
            .send()
            .await?;
        if !answer.status().is_success() {
            bail!(
                "the OpenID provider refuses a token for {scope}: {}",
                answer.text().await?
            );
        }
        Ok(answer.json::<TokenAnswer>().await?.access_token)
    }
}
