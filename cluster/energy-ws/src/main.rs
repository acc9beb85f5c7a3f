//! `energy-ws`: settings from the environment, then the library. Exit code 64 on a wrong setting.

use std::process::ExitCode;

fn main() -> ExitCode {
    service::start("energy-ws", energy_ws::Settings::from_env, energy_ws::build)
}
