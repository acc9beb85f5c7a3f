//! `redpanda-sink`: settings from the environment, then the library. Exit code 64 on a wrong setting.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::start(
        "redpanda-sink",
        redpanda_sink::Settings::from_env,
        redpanda_sink::build,
    )
}
