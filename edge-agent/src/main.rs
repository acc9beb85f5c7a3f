//! Command line of the edge agent.

use std::{
    io::{IsTerminal as _, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use edge_agent::{EXIT_BROKEN, EXIT_CONFIG, config::Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// An MQTT broker that keeps every reading on disk and forwards it to Redpanda.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file; every key can be overridden by an `EDGE_AGENT_*` variable.
    #[arg(
        long,
        global = true,
        env = "EDGE_AGENT_CONFIG",
        default_value = "/etc/edge-agent/edge-agent.toml"
    )]
    config: PathBuf,
    /// Form of the log.
    #[arg(long, global = true, env = "LOG_FORMAT", default_value = "pretty")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent.
    Run,
    /// Check the configuration and exit: 0 when it can be used, 64 when not.
    Check,
    /// Print what the running agent's /status says.
    Status,
    /// Read a password from standard input and print its hash for the file of users.
    HashPassword,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For a person.
    Pretty,
    /// One JSON object a line.
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log(arguments.log_format);
    if matches!(arguments.command, Command::HashPassword) {
        return finish(hash_password());
    }
    let config = match Config::load(&arguments.config, |name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(error) => {
            report(&format!("configuration: {error}"));
            return exit(EXIT_CONFIG);
        }
    };
    let outcome = match arguments.command {
        Command::Check => {
            print(&format!(
                "{}: ok, agent {}\n",
                arguments.config.display(),
                config.agent
            ));
            Ok(())
        }
        Command::Status => status(&config),
        Command::HashPassword => unreachable!("handled before the configuration is read"),
        Command::Run => run(config),
    };
    finish(outcome)
}

fn finish(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&format!("{error:#}"));
            exit(EXIT_BROKEN)
        }
    }
}

fn exit(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).expect("exit codes are small"))
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("LOG_LEVEL").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Pretty => log.with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

fn report(text: &str) {
    // Nothing can be done when even this cannot be written.
    let _ = writeln!(std::io::stderr(), "edge-agent: {text}");
}

fn print(text: &str) {
    // A reader that went away wants no more.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[tokio::main]
async fn run(config: Config) -> anyhow::Result<()> {
    let agent = edge_agent::build(config).await?;
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tracing::info!(mqtt = %agent.mqtt_address()?, admin = %agent.admin_address()?, "the agent is up");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "systemd could not be told that the agent is ready");
    }
    tokio::spawn({
        let stop = stop.clone();
        async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping: captured messages are committed, then the agent ends");
            stop.cancel();
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // Everything acknowledged is on disk, so nothing is lost by going at once.
            std::process::exit(EXIT_BROKEN);
        }
    });
    let reload = agent.reload();
    let mut hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
    tokio::spawn({
        async move {
            while hangup.recv().await.is_some() {
                reload.notify_one();
            }
        }
    });
    agent.run(stop).await
}

/// One line of standard input, so that no password stands in a process list or a shell's history.
fn hash_password() -> anyhow::Result<()> {
    if std::io::stdin().is_terminal() {
        report("type the password and press Enter (it is shown)");
    }
    let mut password = String::new();
    std::io::stdin()
        .read_line(&mut password)
        .context("reading the password")?;
    let password = password.trim_end_matches(['\r', '\n']);
    anyhow::ensure!(!password.is_empty(), "the password is empty");
    let hash =
        edge_agent::broker::hash_password(password).map_err(|error| anyhow::anyhow!("hashing: {error}"))?;
    print(&format!("{hash}\n"));
    Ok(())
}

/// A plain HTTP/1.0 request: the answer ends with the connection, so no HTTP client is needed.
fn status(config: &Config) -> anyhow::Result<()> {
    const LIMIT: Duration = Duration::from_secs(5);
    let mut address = config.admin_listen;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)
        .with_context(|| format!("no agent answers on admin.listen {address}; is it running?"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET /status HTTP/1.0\r\nHost: edge-agent\r\n\r\n")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("reading the agent's answer")?;
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .context("the agent's answer is no HTTP")?;
    let status: serde_json::Value = serde_json::from_str(body).context("the agent's answer is no JSON")?;
    print(&format!("{}\n", serde_json::to_string_pretty(&status)?));
    Ok(())
}
