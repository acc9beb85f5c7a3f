//! The control socket: what only root and the agent's own user may ask.
//!
//! A Unix socket in `data_dir`, readable by its owner alone, for questions that show payloads or change something. The admin port
//! stays read only. A socket that cannot be made costs the commands that need it, never a reading.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{net::UnixListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

pub use crate::dead_letters::READ_LIMIT;
use crate::dead_letters::{DEFAULT_LIMIT, DeadLetters, Purpose};

/// Where the socket is.
pub fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// Makes the socket. The one of an agent that was killed is in the way: that agent is gone, because this one has its buffer.
pub fn bind(data_dir: &Path) -> std::io::Result<UnixListener> {
    let path = socket(data_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

struct Control {
    letters: DeadLetters,
    /// Reading the topic takes memory: once at a time.
    reading: Semaphore,
}

/// Serves until `stop`.
pub async fn serve(
    listener: UnixListener,
    letters: DeadLetters,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let control = Arc::new(Control {
        letters,
        reading: Semaphore::new(1),
    });
    let router = Router::new()
        .route("/dead-letters", get(look))
        .route("/dead-letters/replay", post(replay))
        .with_state(control);
    let serving = axum::serve(listener, router);
    // Whoever asks at the stop asks again after the start; a replay is on disk or not told as done.
    tokio::select! {
        served = async { serving.await } => served,
        () = stop.cancelled() => Ok(()),
    }
}

#[derive(Deserialize)]
struct Asked {
    limit: Option<u32>,
}

async fn look(State(control): State<Arc<Control>>, Query(asked): Query<Asked>) -> Response {
    answer(&control, Purpose::Look, asked).await
}

async fn replay(State(control): State<Arc<Control>>, Query(asked): Query<Asked>) -> Response {
    answer(&control, Purpose::Replay, asked).await
}

async fn answer(control: &Control, purpose: Purpose, asked: Asked) -> Response {
    let Ok(_one) = control.reading.try_acquire() else {
        let error = "the dead letters are being read for somebody else; try again in a minute";
        return (StatusCode::CONFLICT, Json(json!({"error": error}))).into_response();
    };
    match control
        .letters
        .read(purpose, asked.limit.unwrap_or(DEFAULT_LIMIT))
        .await
    {
        Ok(answer) => {
            if let Some(replayed) = answer.replayed {
                tracing::info!(
                    replayed,
                    found = answer.found,
                    "dead letters were put into the buffer again"
                );
            }
            Json(answer).into_response()
        }
        Err(error) => {
            let error = error.to_string();
            (StatusCode::BAD_GATEWAY, Json(json!({"error": error}))).into_response()
        }
    }
}
