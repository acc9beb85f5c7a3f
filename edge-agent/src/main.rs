//! Command line of the edge agent.

mod memory;

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use edge_agent::{
    EXIT_BROKEN, EXIT_CONFIG, EXIT_UNAVAILABLE,
    cli::{self, AskError, DeadLetterArguments, Form},
    config::{Config, ConfigError, Whereabouts},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// An MQTT broker that keeps every reading on disk and forwards it to Redpanda.
#[derive(Parser)]
#[command(version, after_help = cli::EXIT_CODES, propagate_version = true)]
struct Arguments {
    /// Configuration file; `EDGE_AGENT_*` variables override it (docs/OPERATIONS.md lists them).
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
    /// What the running agent is doing: backlog, bytes, oldest age, rates, last error, clock.
    #[command(after_help = cli::EXIT_CODES)]
    Status(Form),
    /// Who was heard, who connected, what was refused and why, what could not be decoded.
    #[command(after_help = cli::EXIT_CODES)]
    Devices(Form),
    /// What could not be decoded; with --replay, what can be decoded now goes into the buffer again. For root and the agent's user.
    #[command(after_help = cli::EXIT_CODES)]
    DeadLetters {
        #[command(flatten)]
        arguments: DeadLetterArguments,
        #[command(flatten)]
        form: Form,
    },
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
    memory::give_back_soon();
    let Arguments {
        config: file,
        log_format,
        command,
    } = Arguments::parse();
    start_log(log_format);
    let variable = |name: &str| std::env::var(name).ok();
    let ask = |question: &dyn Fn(&Whereabouts) -> Result<String, AskError>| match Whereabouts::load(
        &file, variable,
    ) {
        Ok(place) => answer(question(&place)),
        Err(error) => misconfigured(&error),
    };
    match command {
        Command::HashPassword => finish(hash_password()),
        Command::Status(form) => ask(&|place| cli::status(place, form)),
        Command::Devices(form) => ask(&|place| cli::devices(place, form)),
        Command::DeadLetters { arguments, form } => ask(&|place| cli::dead_letters(place, &arguments, form)),
        Command::Check => match Config::check_outside(&file, variable) {
            Ok((config, unseen)) => {
                let unseen = if unseen {
                    "; a password or key that it does not name is systemd's to give (LoadCredential=) and was not looked at"
                } else {
                    ""
                };
                print(&format!(
                    "{}: ok, agent {}{unseen}\n",
                    file.display(),
                    config.agent
                ));
                ExitCode::SUCCESS
            }
            Err(error) => misconfigured(&error),
        },
        Command::Run => {
            let config = Config::load(&file, variable);
            match config.and_then(|config| config.check_keys().map(|()| config)) {
                Ok(config) => finish(run(config)),
                Err(error) => misconfigured(&error),
            }
        }
    }
}

fn misconfigured(error: &ConfigError) -> ExitCode {
    report(&format!("configuration: {error}"));
    exit(EXIT_CONFIG)
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

fn answer(answer: Result<String, AskError>) -> ExitCode {
    match answer {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            report(&error.to_string());
            exit(EXIT_UNAVAILABLE)
        }
    }
}

fn exit(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).expect("exit codes are small"))
}

/// `LOG_LEVEL` is a level, or levels of parts: `info,edge_agent::forward=debug`.
fn start_log(format: LogFormat) {
    let asked = std::env::var("LOG_LEVEL").unwrap_or_else(|_| "info".to_owned());
    let parsed = asked.parse::<Targets>();
    let levels = match &parsed {
        Ok(levels) => levels.clone(),
        Err(_) => Targets::new().with_default(LevelFilter::INFO),
    };
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let log = match format {
        LogFormat::Pretty => log.with_target(false).boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(log.with_filter(levels))
        .init();
    if let Err(error) = parsed {
        tracing::warn!("LOG_LEVEL {asked:?} is neither a level nor levels of parts ({error}); info is taken");
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
    // The buffer is open and the ports are bound.
    edge_agent::tell_systemd(&[sd_notify::NotifyState::Ready]);
    tokio::spawn({
        let stop = stop.clone();
        async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping: captured messages are committed, then the agent ends");
            edge_agent::tell_systemd(&[sd_notify::NotifyState::Stopping]);
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
