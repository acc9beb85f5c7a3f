//! `redpanda-sink`: settings from the environment, then the library. Exit code 64 on a wrong setting or argument.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use redpanda_sink::{Settings, replay};
use service::{Env, KafkaSettings};

/// Writes the records of the homelab topics into TimescaleDB, each once. Without a command it runs until SIGTERM.
#[derive(Parser)]
#[command(
    name = "redpanda-sink",
    version,
    after_help = "Environment:
  KAFKA_BOOTSTRAP   brokers, host:port with commas
  KAFKA_USERNAME, KAFKA_PASSWORD_FILE, KAFKA_MECHANISM   login, SCRAM-SHA-256 (default) or SCRAM-SHA-512
  KAFKA_SECURITY, KAFKA_CA_FILE   plaintext (default) or tls, and who signed the brokers' certificate
  KAFKA_GROUP       consumer group (default: redpanda-sink)
  DATABASE_URL      postgres://sink@host/telemetry; or DATABASE_URL_FILE, a file that holds it
  METRICS_ADDRESS   admin port (default: 0.0.0.0:9090)
  LOG_LEVEL, LOG_FORMAT   default: info, json"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Sends dead letters of stage insert back into their topic, once their cause is gone
    #[command(after_help = "Environment:
  KAFKA_BOOTSTRAP   brokers, host:port with commas; login and TLS as the sink itself

Look first, with --dry-run. A record that is bad still becomes a new letter.")]
    ReplayDeadLetters(replay::Arguments),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // What cannot be printed has no reader.
            let _ = error.print();
            let wrong = error.use_stderr();
            return if wrong {
                ExitCode::from(service::EXIT_CONFIG)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match cli.command {
        None => service::start("redpanda-sink", Settings::from_env, redpanda_sink::build),
        Some(Command::ReplayDeadLetters(arguments)) => replay_dead_letters(&arguments),
    }
}

fn replay_dead_letters(arguments: &replay::Arguments) -> ExitCode {
    let kafka = match KafkaSettings::from_env(&Env::process()) {
        Ok(kafka) => kafka,
        Err(error) => {
            eprintln!("cannot replay dead letters: {error}");
            return ExitCode::from(service::EXIT_CONFIG);
        }
    };
    match replay::run(&kafka, arguments, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot replay dead letters: {error:#}");
            ExitCode::FAILURE
        }
    }
}
