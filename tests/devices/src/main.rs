//! Runs the simulated devices against an MQTT broker until Ctrl-C or SIGTERM.

use std::sync::Arc;

use clap::{Parser, ValueEnum};
use devices::{Credentials, House, MeterKind, Options, Pace};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Simulated devices of one house: four Shelly H&T sensors, an electricity meter, a ThermIQ heat pump, a Tasmota
/// and a Shelly plug. The same seed gives the same house, and a restart goes on where it would have been.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// MQTT broker, host:port.
    #[arg(long, env = "MQTT_ADDRESS", default_value = "127.0.0.1:1883")]
    address: String,
    /// User of the devices; anonymous without.
    #[arg(long, env = "MQTT_USER", requires = "password")]
    user: Option<String>,
    /// Password of the devices.
    #[arg(long, env = "MQTT_PASSWORD", requires = "user", hide_env_values = true)]
    password: Option<String>,
    /// Chooses device ids, weather and habits.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which meter reads the house connection.
    #[arg(long, value_enum, default_value_t = MeterArgument::Saveeye)]
    meter: MeterArgument,
    /// Seven kilowatts of solar panels on the roof.
    #[arg(long)]
    solar: bool,
    /// How often the devices send: as real ones do, or quick enough to watch.
    #[arg(long, value_enum, default_value_t = PaceArgument::Demo)]
    pace: PaceArgument,
}

#[derive(Clone, Copy, ValueEnum)]
enum MeterArgument {
    Saveeye,
    Pro3em,
}

#[derive(Clone, Copy, ValueEnum)]
enum PaceArgument {
    Real,
    Demo,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let house = House::new(arguments.seed).with_meter(match arguments.meter {
        MeterArgument::Saveeye => MeterKind::Saveeye,
        MeterArgument::Pro3em => MeterKind::Pro3em,
    });
    let house = Arc::new(if arguments.solar {
        house.with_solar()
    } else {
        house
    });
    let mut options = Options::new(arguments.address, house);
    options.credentials = arguments
        .user
        .zip(arguments.password)
        .map(|(user, password)| Credentials { user, password });
    options.pace = match arguments.pace {
        PaceArgument::Real => Pace::REAL,
        PaceArgument::Demo => Pace::DEMO,
    };
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut devices = std::pin::pin!(devices::run(options, stop.clone()));
    tokio::select! {
        ended = &mut devices => return ended,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    devices.await
}
