//! The settings API's process: settings, sockets, run.

use std::process::ExitCode;

use homelab_settings_api::{Settings, run};
use service::server::Listeners;

fn main() -> ExitCode {
    service::start(
        "homelab-settings-api",
        Settings::from_env,
        |settings, lifecycle| async move {
            let listeners = Listeners::bind(settings.listen_address, settings.metrics_address).await?;
            run(settings, listeners, &lifecycle)
        },
    )
}
