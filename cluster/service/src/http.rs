//! What every public HTTP interface has around its handlers: problem responses for whatever goes wrong, a time
//! limit a request, headers that keep answers out of caches, a count and a duration for each route.

use std::any::Any;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use prometheus::{HistogramVec, IntCounterVec};
use tower_http::catch_panic::CatchPanicLayer;

use crate::metrics::Metrics;
use crate::problem::{self, Problem};

/// Time an answer may take. A browser's user has gone by then, and the work must not pile up.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Largest body taken: a settings change has a few hundred bytes.
pub const BODY_BYTES: usize = 64 * 1024;
/// When a caller that met an overloaded service should ask again.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Bounds of the duration histogram: from a query that hits the cache to the request limit.
const DURATION_SECONDS: [f64; 10] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// Puts the common layers around `router`, with [`REQUEST_LIMIT`] for each request.
pub fn shell(router: Router, metrics: &Metrics) -> Router {
    shell_within(router, metrics, REQUEST_LIMIT)
}

/// As [`shell`], with another limit.
pub fn shell_within(router: Router, metrics: &Metrics, limit: Duration) -> Router {
    router
        .fallback(|| async { Problem::of(StatusCode::NOT_FOUND) })
        .method_not_allowed_fallback(|| async { Problem::of(StatusCode::METHOD_NOT_ALLOWED) })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(limit, within_limit))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(only_problems))
        .layer(from_fn(default_headers))
        .layer(from_fn_with_state(Observed::new(metrics), observe))
}

async fn within_limit(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            tracing::warn!(
                "a request took longer than {} s and was given up",
                limit.as_secs_f64()
            );
            Problem::unavailable(RETRY_AFTER).into_response()
        }
    }
}

fn panicked(cause: Box<dyn Any + Send>) -> Response {
    let cause = cause
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| cause.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    tracing::error!("a handler panicked: {cause}");
    Problem::internal().into_response()
}

/// Rejections that axum or a layer wrote as plain text become problems; headers such as `Allow` stay.
async fn only_problems(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let has_form = response.headers().get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value == problem::CONTENT_TYPE.as_bytes() || value.starts_with(b"application/json")
    });
    if !is_error || has_form {
        return response;
    }
    let mut replaced = Problem::of(status).into_response();
    for (name, value) in response.headers() {
        if !matches!(*name, header::CONTENT_TYPE | header::CONTENT_LENGTH) {
            replaced.headers_mut().insert(name.clone(), value.clone());
        }
    }
    replaced
}

/// Answers hold a household's life: no cache keeps one unless its handler said otherwise.
async fn default_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

#[derive(Clone)]
struct Observed {
    requests: IntCounterVec,
    durations: HistogramVec,
}

impl Observed {
    fn new(metrics: &Metrics) -> Self {
        let labels = ["method", "route", "status"];
        Self {
            requests: metrics.counters("http_requests_total", "Requests answered.", &labels),
            durations: metrics.histograms(
                "http_request_duration_seconds",
                "Time from the request's head to the answer's head.",
                &DURATION_SECONDS,
                &["route"],
            ),
        }
    }
}

/// Counts and times a request by its route's pattern. The path and the query stay out of labels and logs: a query
/// can hold a token.
async fn observe(State(observed): State<Observed>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched".to_owned(), |p| p.as_str().to_owned());
    let method = known_method(request.method());
    let response = next.run(request).await;
    let status = response.status();
    let elapsed = started.elapsed().as_secs_f64();
    observed
        .requests
        .with_label_values(&[method, &route, status.as_str()])
        .inc();
    observed.durations.with_label_values(&[&route]).observe(elapsed);
    tracing::debug!(
        method,
        route,
        status = status.as_u16(),
        duration_seconds = elapsed,
        "{method} {route} answered {}",
        status.as_u16()
    );
    response
}

/// A method as a label: a caller can send any word as a method, and labels must stay few.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::routing::{get, post};
    use serde::Deserialize;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;
    use crate::extract::{Json, Path, Query};

    #[derive(Deserialize)]
    struct Wanted {
        count: u32,
    }

    fn router(metrics: &Metrics) -> Router {
        let router = Router::new()
            .route("/ok", get(|| async { "fine" }))
            .route("/hang", get(std::future::pending::<()>))
            .route(
                "/panic",
                get(async || -> () { panic!("a bug with private detail") }),
            )
            .route(
                "/plain",
                get(|| async { (StatusCode::BAD_GATEWAY, "connection to 10.0.0.7 refused") }),
            )
            .route(
                "/query",
                get(async |Query(wanted): Query<Wanted>| wanted.count.to_string()),
            )
            .route(
                "/path/{count}",
                get(async |Path(count): Path<u32>| count.to_string()),
            )
            .route(
                "/body",
                post(async |Json(wanted): Json<Wanted>| wanted.count.to_string()),
            );
        shell_within(router, metrics, Duration::from_millis(50))
    }

    async fn answer(request: Request) -> (StatusCode, axum::http::HeaderMap, String) {
        let response = router(&Metrics::new("test")).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        (
            parts.status,
            parts.headers,
            String::from_utf8(body.to_vec()).unwrap(),
        )
    }

    #[tokio::test]
    async fn whatever_goes_wrong_is_a_problem() {
        let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
        let post = |body: &'static str| {
            Request::post("/body")
                .header("content-type", "application/json")
                .body(Body::from(body))
                .unwrap()
        };
        let big = Request::post("/body")
            .header("content-type", "application/json")
            .body(Body::from(vec![b' '; BODY_BYTES + 1]))
            .unwrap();
        for (request, status, detail) in [
            (get("/absent"), 404, "there is nothing at this path"),
            (
                Request::delete("/ok").body(Body::empty()).unwrap(),
                405,
                "this path does not take this method",
            ),
            (get("/hang"), 503, "the service cannot answer just now"),
            (
                get("/panic"),
                500,
                "the service failed to answer; its log has the cause",
            ),
            (
                get("/plain"),
                502,
                "the service failed to answer; its log has the cause",
            ),
            (
                get("/query"),
                400,
                "the query cannot be read: missing field `count`",
            ),
            (
                get("/query?count=x"),
                400,
                "the query cannot be read: count: invalid digit found in string",
            ),
            (get("/path/x"), 400, "the path cannot be read: "),
            (get("/path/%ff"), 400, "the path cannot be read: "),
            (post("{"), 400, "the body is not JSON"),
            (post(r#"{"count":-1}"#), 400, "the body cannot be read: "),
            (
                Request::post("/body").body(Body::from("count=1")).unwrap(),
                415,
                "the body has a media type",
            ),
            (big, 413, "the body is too large"),
        ] {
            let path = format!("{} {}", request.method(), request.uri());
            let (got, headers, body) = answer(request).await;
            assert_eq!(got.as_u16(), status, "{path}: {body}");
            assert_eq!(headers["content-type"], problem::CONTENT_TYPE, "{path}");
            assert_eq!(headers["cache-control"], "no-store", "{path}");
            let body: Value = serde_json::from_str(&body).unwrap();
            assert!(
                body["detail"].as_str().unwrap().starts_with(detail),
                "{path}: {body}"
            );
            assert_eq!(body["status"], status, "{path}");
            assert_eq!(body["type"], "about:blank", "{path}");
            assert_eq!(body.get("errors"), None, "{path}");
        }
    }

    #[tokio::test]
    async fn headers_that_help_the_caller_are_there() {
        let (_, headers, _) = answer(Request::delete("/ok").body(Body::empty()).unwrap()).await;
        assert_eq!(headers["allow"], "GET,HEAD");
        let (_, headers, _) = answer(Request::get("/hang").body(Body::empty()).unwrap()).await;
        assert_eq!(headers["retry-after"], "2");
        let (status, headers, body) = answer(Request::get("/ok").body(Body::empty()).unwrap()).await;
        assert_eq!((status.as_u16(), body.as_str()), (200, "fine"));
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }

    #[tokio::test]
    async fn fields_at_fault_are_listed() {
        let problem = Problem::field("from", "must be before to").into_response();
        let body = to_bytes(problem.into_body(), 1 << 16).await.unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            json!({"type":"about:blank","title":"Bad Request","status":400,"detail":"from must be before to",
                "errors":[{"field":"from","detail":"must be before to"}]})
        );
    }

    #[tokio::test]
    async fn requests_are_counted_by_route_and_odd_ones_do_not_grow_the_labels() {
        let metrics = Metrics::new("test");
        let router = router(&metrics);
        for (method, path) in [
            ("GET", "/ok"),
            ("GET", "/a"),
            ("GET", "/b"),
            ("BREW", "/ok"),
            ("BOIL", "/ok"),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .body(Body::empty())
                .unwrap();
            router.clone().oneshot(request).await.unwrap();
        }
        let text = metrics.render();
        for line in [
            r#"test_http_requests_total{method="GET",route="/ok",status="200"} 1"#,
            r#"test_http_requests_total{method="GET",route="unmatched",status="404"} 2"#,
            r#"test_http_requests_total{method="other",route="/ok",status="405"} 2"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
