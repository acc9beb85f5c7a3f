//! Log output on standard error: JSON lines for machines, or a pretty form for people. Never a payload, a token
//! or a person's address: callers keep those out.

use std::io::{IsTerminal, stderr};
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, Env};

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For reading in a terminal.
    Pretty,
}

impl FromStr for LogFormat {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "pretty" => Ok(Self::Pretty),
            _ => Err("must be json or pretty"),
        }
    }
}

/// `LOG_FORMAT` and `LOG_LEVEL`.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// How lines look; default JSON.
    pub format: LogFormat,
    /// A tracing filter such as `info` or `info,service=debug`; default `info`.
    pub level: String,
}

impl LogSettings {
    /// Reads the two variables and checks them.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let format = env.parsed("LOG_FORMAT", LogFormat::Json)?;
        let level = env.optional("LOG_LEVEL")?.unwrap_or_else(|| "info".to_owned());
        EnvFilter::try_new(&level).map_err(|error| ConfigError::invalid("LOG_LEVEL", error))?;
        Ok(Self { format, level })
    }
}

/// Starts logging. Without settings (they were wrong) the defaults serve to report just that. A second call in
/// one process, as in tests, changes nothing.
pub fn init(settings: Option<&LogSettings>) {
    let level = settings.map_or("info", |s| s.level.as_str());
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr);
    // A subscriber that is already there is kept: the result says nothing else.
    let _ = match settings.map_or(LogFormat::Json, |s| s.format) {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Pretty => builder.with_ansi(stderr().is_terminal()).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let check = |pairs: &[(&str, &str)]| LogSettings::from_env(&Env::of(pairs)).map(|s| s.format);
        assert_eq!(check(&[]).unwrap(), LogFormat::Json);
        assert_eq!(
            check(&[("LOG_FORMAT", "pretty"), ("LOG_LEVEL", "warn,service=debug")]).unwrap(),
            LogFormat::Pretty
        );
        let error = check(&[("LOG_FORMAT", "xml")]).unwrap_err().to_string();
        assert_eq!(error, "LOG_FORMAT is invalid: must be json or pretty");
        assert!(
            check(&[("LOG_LEVEL", "service=loud")])
                .unwrap_err()
                .to_string()
                .starts_with("LOG_LEVEL is invalid")
        );
    }
}
