//! The one origin a browser talks to, as Traefik is in production: the built page with its security headers, its runtime
//! configuration, and the way to the services behind it.
//!
//! It never looks into a token and adds no header that says who somebody is: each service verifies for itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, UPGRADE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::compression::CompressionLayer;
use tower_http::services::{ServeDir, ServeFile};

use crate::oidc;

/// Where requests are passed on to.
#[derive(Clone, Copy, Debug)]
pub struct Upstreams {
    /// homelab-api.
    pub api: SocketAddr,
    /// homelab-settings-api.
    pub settings: SocketAddr,
    /// energy-ws.
    pub ws: SocketAddr,
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    origin: String,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Shared {
    upstreams: Upstreams,
    config: String,
    headers: HeaderMap,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Gateway {
    /// Serves the page built into `dist` of the folder `page` on `listener`, with `issuer` in its configuration.
    ///
    /// # Errors
    /// When the page has not been built or the listener is broken.
    pub async fn start(
        listener: TcpListener,
        page: &Path,
        issuer: &str,
        time_zone: &str,
        upstreams: Upstreams,
    ) -> Result<Gateway> {
        let dist = page.join("dist");
        let index = dist.join("index.html");
        anyhow::ensure!(
            index.is_file(),
            "the web page is not built: {} is missing",
            index.display()
        );
        let origin = format!("http://{}", listener.local_addr()?);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let shared = Arc::new(Shared {
            upstreams,
            config: config(issuer, time_zone),
            headers: page_headers(&page.join("security-headers.json"), issuer)?,
            stop: stop.clone(),
            tasks: tasks.clone(),
        });
        let server = axum::serve(listener, router(shared, dist, index));
        let stopped = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                ended = server => if let Err(error) = ended { eprintln!("stack: the gateway ended: {error}") },
                () = stopped.cancelled() => {}
            }
        });
        Ok(Gateway { origin, stop, tasks })
    }

    /// The origin, without a slash at its end.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Stops it, open WebSocket connections included.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn router(shared: Arc<Shared>, dist: PathBuf, index: PathBuf) -> Router {
    // A page of the app is any other path; a missing asset stays missing, or a stale page would load HTML as a script.
    let page = Router::new()
        .nest_service("/assets", ServeDir::new(dist.join("assets")))
        .fallback_service(ServeDir::new(dist).fallback(ServeFile::new(index)))
        .layer(CompressionLayer::new());
    Router::new()
        .route("/config.json", get(runtime_config))
        .route("/api/{*path}", axum::routing::any(pass_on))
        .route("/ws/{*path}", axum::routing::any(pass_on))
        .merge(page)
        .layer(from_fn_with_state(shared.clone(), security_headers))
        .with_state(shared)
}

/// What the page reads before anything else; the same keys as in production.
fn config(issuer: &str, time_zone: &str) -> String {
    json!({
        "issuer": issuer,
        "client_id": oidc::WEB_CLIENT,
        "scope": format!("openid profile offline_access {}", oidc::SCOPES.join(" ")),
        "household_time_zone": time_zone,
        "api_base": "",
        "ws_url": "",
    })
    .to_string()
}

/// The page's own `security-headers.json`, which names the origins it may connect to beside its own as a placeholder.
fn page_headers(file: &Path, issuer: &str) -> Result<HeaderMap> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let headers: BTreeMap<String, String> = serde_json::from_str(&text).context("security-headers.json")?;
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let value = value.replace("{connect_origins}", issuer);
        map.insert(HeaderName::try_from(&name)?, HeaderValue::try_from(&value)?);
    }
    Ok(map)
}

async fn runtime_config(State(shared): State<Arc<Shared>>) -> Response {
    (
        [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")],
        shared.config.clone(),
    )
        .into_response()
}

async fn security_headers(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let hashed_asset = path.starts_with("/assets/");
    let passed_on = path.starts_with("/api/") || path.starts_with("/ws/");
    let mut response = next.run(request).await;
    if !passed_on {
        let ok = response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED;
        // Names under assets/ carry a hash of their content; everything else is asked for again.
        let keep = if hashed_asset && ok {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        let headers = response.headers_mut();
        headers.extend(shared.headers.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    }
    response
}

/// Which service answers a path: the routes of `gitops/apps/base/traefik-routes`.
fn upstream(path: &str, upstreams: Upstreams) -> SocketAddr {
    let below = |prefix: &str| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if below("/ws") {
        upstreams.ws
    } else if below("/api/v1/heatpump/settings") || (below("/api/v1/plugs") && !path.ends_with("/history")) {
        upstreams.settings
    } else {
        upstreams.api
    }
}

async fn pass_on(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let upstream = upstream(request.uri().path(), shared.upstreams);
    forward(&shared, upstream, request).await.unwrap_or_else(|error| {
        eprintln!("stack: the gateway cannot reach {upstream}: {error:#}");
        let problem = json!({"type": "about:blank", "title": "Bad Gateway", "status": 502});
        (
            StatusCode::BAD_GATEWAY,
            [(CONTENT_TYPE, "application/problem+json")],
            problem.to_string(),
        )
            .into_response()
    })
}

/// One upstream connection per request: simple, and a restarted service is met again at once.
async fn forward(shared: &Shared, upstream: SocketAddr, mut request: Request) -> Result<Response> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake::<_, Body>(TokioIo::new(stream)).await?;
    shared.tasks.spawn(async move {
        let _ended = connection.with_upgrades().await;
    });
    let wants_upgrade = has_upgrade(request.headers());
    let client = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
    let mut response = sender.send_request(request).await?;
    if let Some(client) = client
        && response.status() == StatusCode::SWITCHING_PROTOCOLS
    {
        let server = hyper::upgrade::on(&mut response);
        let stop = shared.stop.clone();
        shared.tasks.spawn(async move {
            let (Ok(client), Ok(server)) = (client.await, server.await) else {
                return;
            };
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            tokio::select! {
                _ended = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                () = stop.cancelled() => {}
            }
        });
    }
    Ok(response.map(Body::new))
}

fn has_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_goes_to_its_service() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let upstreams = Upstreams {
            api: at(1),
            settings: at(2),
            ws: at(3),
        };
        for (path, port) in [
            ("/api/v1/energy/latest", 1),
            ("/api/v1/heatpump/latest", 1),
            ("/api/v1/heatpump/settings", 2),
            ("/api/v1/heatpump/settings/ivt-495", 2),
            ("/api/v1/heatpump/settings-of-another", 1),
            ("/api/v1/plugs", 2),
            ("/api/v1/plugs/plug-1", 2),
            ("/api/v1/plugs/plug-1/schedules", 2),
            ("/api/v1/plugs/plug-1/history", 1),
            ("/ws/energy", 3),
        ] {
            assert_eq!(upstream(path, upstreams).port(), port, "{path}");
        }
    }

    #[tokio::test]
    async fn serves_the_page_its_assets_and_its_configuration() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let dist = folder.path().join("dist");
        std::fs::create_dir_all(dist.join("assets"))?;
        std::fs::write(dist.join("index.html"), "<title>page</title>")?;
        std::fs::write(dist.join("assets/app-1.js"), "1")?;
        let headers = json!({"Content-Security-Policy": "connect-src 'self' {connect_origins}"});
        std::fs::write(folder.path().join("security-headers.json"), headers.to_string())?;
        let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
        let upstreams = Upstreams {
            api: nobody,
            settings: nobody,
            ws: nobody,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let gateway = Gateway::start(
            listener,
            folder.path(),
            "http://127.0.0.1:1",
            "Europe/Stockholm",
            upstreams,
        )
        .await?;
        let client = crate::http::client()?;
        for (path, status, cache) in [
            ("/", 200, "no-cache"),
            ("/energy/today", 200, "no-cache"),
            ("/assets/app-1.js", 200, "public, max-age=31536000, immutable"),
            ("/assets/app-0.js", 404, "no-cache"),
            ("/config.json", 200, "no-cache"),
        ] {
            let answer = client.get(format!("{}{path}", gateway.origin())).send().await?;
            assert_eq!(answer.status().as_u16(), status, "{path}");
            assert_eq!(answer.headers()[CACHE_CONTROL], cache, "{path}");
            assert_eq!(
                answer.headers()["content-security-policy"],
                "connect-src 'self' http://127.0.0.1:1",
                "{path}"
            );
        }
        let answer = client
            .get(format!("{}/api/v1/energy/latest", gateway.origin()))
            .send()
            .await?;
        assert_eq!(answer.status().as_u16(), 502);
        gateway.stop().await;
        Ok(())
    }
}
