//! What the four services share, and no more: settings from the environment, one lifecycle, logs, health,
//! metrics, problem responses and the verification of tokens.
//!
//! It never talks to Kafka (it only reads how a service would), asks a database nothing but whether it is there, knows
//! nothing of readings, and never believes a header a proxy has set: who a caller is follows from a signed token alone.
//!
//! A service's `main` is one call of [`start`]; its library has a `run` that takes its settings, its bound
//! sockets and a [`Lifecycle`], so that a test owns the sockets and the stop signal.

pub mod auth;
pub mod backoff;
pub mod config;
#[cfg(feature = "database")]
pub mod database;
pub mod extract;
pub mod health;
pub mod http;
pub mod kafka;
pub mod lifecycle;
pub mod logging;
pub mod metrics;
#[cfg(feature = "openapi")]
pub mod openapi;
pub mod problem;
pub mod server;

use std::process::ExitCode;

pub use auth::{AuthError, AuthSettings, Claims, Scoped, Verifier, scope};
pub use config::{ConfigError, Env, Secret};
pub use health::{Check, Health};
pub use kafka::KafkaSettings;
pub use lifecycle::Lifecycle;
pub use metrics::Metrics;
pub use problem::Problem;

/// Exit code for a wrong or missing setting (`EX_USAGE` of sysexits.h): restarting does not help, a person must act.
pub const EXIT_CONFIG: u8 = 64;

/// Runs a service from start to exit: logs, settings, run-time, signals, exit code.
///
/// `load` reads the settings before anything is bound; its error ends the process with [`EXIT_CONFIG`]. `run`
/// starts the service's tasks on the lifecycle and returns; the process then lives until a signal comes or a
/// task ends. Any failure ends it with code 1.
pub fn start<S, R>(
    name: &'static str,
    load: impl FnOnce(&Env) -> Result<S, ConfigError>,
    run: impl FnOnce(S, Lifecycle) -> R,
) -> ExitCode
where
    R: Future<Output = anyhow::Result<()>>,
{
    let env = Env::process();
    let log = logging::LogSettings::from_env(&env);
    logging::init(log.as_ref().ok());
    let settings = match log.and_then(|_| load(&env)) {
        Ok(settings) => settings,
        Err(error) => {
            tracing::error!(service = name, "cannot start {name}: {error}");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            runtime.block_on(async {
                let lifecycle = Lifecycle::new();
                lifecycle.listen_for_signals()?;
                if let Err(error) = run(settings, lifecycle.clone()).await {
                    lifecycle.fail(error.context(format!("{name} could not start")));
                }
                lifecycle.wait().await
            })
        });
    match outcome {
        Ok(()) => {
            tracing::info!(service = name, "{name} stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(service = name, "{name} failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
