//! `stack`: every real part on this machine, for a look, for a smoke run, or around a command.
//!
//! It never leaves anything running: Ctrl-C and SIGTERM take everything down, and after a crash the guardian does.

use std::io::Write as _;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use stack::{Devices, Options, Stack, control, frames, guardian, kafka, oidc};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What a person who has run the demo before expects to find it at; another port is taken when these are not free.
const DEMO_WEB_PORT: u16 = 8080;
const DEMO_MQTT_PORT: u16 = 1883;

/// The exit code of a program that Ctrl-C ended, as shells report it.
const INTERRUPTED: u8 = 130;

/// A command that was told to stop gets this long, Playwright closes its browser in it.
const COMMAND_STOPS_WITHIN: Duration = Duration::from_secs(10);

/// Brings up every part of Homelab K12n on this machine, on 127.0.0.1 only, and takes it down again.
#[derive(Parser)]
#[command(
    name = "stack",
    version,
    after_help = "Environment:
  KAFKA_BOOTSTRAP   use this broker instead of starting one
  STACK_DIR         where the scratch folder of a run is made (default: the system's temporary folder)
  STACK_KEEP        keep the data of a run, not only its logs
  STACK_BIN_DIR     where the services' binaries are (default: built by cargo)
  STACK_LOG_LEVEL   what the services log (default: info)"
)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Everything with simulated devices and the web page; prints the address and a login and runs until Ctrl-C.
    Demo(Common),
    /// Follows one reading from MQTT to homelab-api and energy-ws and prints its latencies as one JSON line.
    Smoke(Common),
    /// Brings everything up, runs a command with STACK_* set, and exits with its code.
    #[command(after_help = "The command's environment:
  STACK_WEB_URL (empty with --no-web) STACK_API_URL STACK_SETTINGS_URL STACK_WS_URL STACK_ISSUER_URL
  STACK_MQTT_HOST STACK_MQTT_PORT STACK_KAFKA_BOOTSTRAP STACK_DATABASE_URL (the read API's role)
  STACK_DEMO_USER STACK_DEMO_PASSWORD STACK_LOGS (a folder)
  STACK_METER STACK_PUMP STACK_PLUGS (device ids of the simulated house)
  STACK_CONTROL_URL, which takes POST requests:
    /house {\"older_days\":365}        begin the simulated house, with a day of history and so many days more of a thinner one
    /pump/BEHAVIOUR /plugs/BEHAVIOUR  applies, ignores, other or offline: what they do with what they are told
    /parts/NAME/ACTION                stop, start or restart a part, named as its log is")]
    Run {
        #[command(flatten)]
        common: Common,
        /// Do not build and serve the web page.
        #[arg(long)]
        no_web: bool,
        /// Run the simulated devices, with a day of history.
        #[arg(long)]
        devices: bool,
        /// Give a device so many seconds to confirm a command, instead of homelab-settings-api's own time.
        #[arg(long, value_name = "SECONDS")]
        command_wait: Option<u64>,
        /// The command, after two dashes.
        #[arg(last = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
}

#[derive(Args)]
struct Common {
    /// How many edge-agents.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    agents: u8,
    /// Which broker; without it real Kafka, and for the demo the mock where Kafka cannot be had.
    #[arg(long)]
    kafka: Option<KafkaKind>,
}

#[derive(Clone, Copy, ValueEnum)]
enum KafkaKind {
    /// Apache Kafka, or the broker named by KAFKA_BOOTSTRAP.
    Real,
    /// librdkafka's in-process mock broker: in memory, good for a look and no more.
    Mock,
}

impl Common {
    fn options(&self, otherwise: kafka::Choice) -> Options {
        let kafka = match self.kafka {
            Some(KafkaKind::Real) => kafka::Choice::Real,
            Some(KafkaKind::Mock) => kafka::Choice::Mock,
            None => otherwise,
        };
        Options {
            agents: usize::from(self.agents),
            kafka,
            ..Options::default()
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let stop = CancellationToken::new();
    let _listening = tokio::spawn(listen_for_signals(stop.clone()));
    let outcome = act(cli.action, &stop).await;
    // Whatever an interrupted or failed start left behind ends here, before the caller goes on.
    if let Ok(run) = guardian::run() {
        run.end();
    }
    outcome.unwrap_or_else(|error| {
        eprintln!("stack: {error:#}");
        ExitCode::FAILURE
    })
}

/// The first signal asks for a stop, the second does not wait for it: the guardian ends what is left.
async fn listen_for_signals(stop: CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_cancelled() {
            std::process::exit(i32::from(INTERRUPTED));
        }
        stop.cancel();
    }
}

async fn act(action: Action, stop: &CancellationToken) -> Result<ExitCode> {
    let options = match &action {
        Action::Demo(common) => Options {
            web: true,
            devices: Some(Devices::default()),
            web_port: Some(DEMO_WEB_PORT),
            mqtt_port: Some(DEMO_MQTT_PORT),
            ..common.options(kafka::Choice::RealOrMock)
        },
        Action::Smoke(common) => common.options(kafka::Choice::Real),
        Action::Run {
            common,
            no_web,
            devices,
            command_wait,
            ..
        } => Options {
            web: !no_web,
            devices: devices.then(Devices::default),
            // The command may begin the simulated house later; where its devices are is said at the start.
            locations: simulated()
                .locations()
                .into_iter()
                .map(|(device, location)| (device, location.to_owned()))
                .collect(),
            command_wait: command_wait.map(Duration::from_secs),
            ..common.options(kafka::Choice::Real)
        },
    };
    let Some(mut stack) = stop
        .run_until_cancelled(Stack::start(options))
        .await
        .transpose()?
    else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let outcome = match action {
        Action::Demo(_) => demo(&stack, stop).await,
        Action::Smoke(_) => smoke(&stack, stop).await,
        Action::Run { command, .. } => run_command(&mut stack, &command, stop).await,
    };
    stack.stop().await;
    outcome
}

async fn smoke(stack: &Stack, stop: &CancellationToken) -> Result<ExitCode> {
    let Some(found) = stop
        .run_until_cancelled(stack::smoke::run(stack))
        .await
        .transpose()?
    else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&found)?)?;
    Ok(ExitCode::SUCCESS)
}

async fn demo(stack: &Stack, stop: &CancellationToken) -> Result<ExitCode> {
    let mqtt = stack.mqtt();
    // The time is filled in by the shell: a Shelly frame seen twice is one reading.
    let mut frame = frames::shelly_ht("shellyhtg3-of-my-own", 21.5);
    frame["params"] = serde_json::json!({"ts": "NOW", "temperature:0": {"id": 0, "tC": 21.5},
        "humidity:0": {"id": 0, "rh": 44.0}});
    let frame = frame.to_string().replace("\"NOW\"", "'$(date +%s)'");
    writeln!(
        std::io::stdout(),
        "
Homelab is running: {web}
  log in as   {user}, password {password}
  MQTT        {mqtt} (no user, from this machine only)
  logs        {logs}
A reading of your own:
  mosquitto_pub -h {host} -p {port} -q 1 -i my-sensor -t shellyhtg3-of-my-own/events/rpc -m '{frame}'
Ctrl-C ends everything.",
        web = stack.web_url()?,
        user = oidc::DEMO_USER,
        password = oidc::DEMO_PASSWORD,
        logs = stack.run().folder().join("logs").display(),
        host = mqtt.ip(),
        port = mqtt.port(),
    )?;
    stop.cancelled().await;
    Ok(ExitCode::SUCCESS)
}

/// What the simulated house of this program has, begun or not.
fn simulated() -> devices::Inventory {
    devices::Inventory::of(&devices::House::new(Devices::default().seed))
}

/// The command runs in a process group of its own in the guardian's care, with the terminal's output.
async fn run_command(
    stack: &mut Stack,
    command: &[std::ffi::OsString],
    stop: &CancellationToken,
) -> Result<ExitCode> {
    let (program, arguments) = command.split_first().context("no command")?;
    let run = stack.run();
    let (mark, id) = run.mark();
    let mqtt = stack.mqtt();
    let control = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let house = simulated();
    let mut child = Command::new(program)
        .args(arguments)
        .env(mark, id)
        .env("STACK_WEB_URL", stack.web_url().unwrap_or_default())
        .env("STACK_API_URL", stack.api_url())
        .env("STACK_SETTINGS_URL", stack.settings_url())
        .env("STACK_WS_URL", stack.ws_url())
        .env("STACK_ISSUER_URL", stack.oidc().issuer())
        .env("STACK_MQTT_HOST", mqtt.ip().to_string())
        .env("STACK_MQTT_PORT", mqtt.port().to_string())
        .env("STACK_KAFKA_BOOTSTRAP", stack.kafka().bootstrap())
        .env("STACK_DATABASE_URL", stack.database_url("api", "telemetry"))
        .env("STACK_DEMO_USER", oidc::DEMO_USER)
        .env("STACK_DEMO_PASSWORD", oidc::DEMO_PASSWORD)
        .env("STACK_LOGS", run.folder().join("logs"))
        .env("STACK_CONTROL_URL", format!("http://{}", control.local_addr()?))
        .env("STACK_METER", &house.saveeye)
        .env("STACK_PUMP", &house.pump)
        .env("STACK_PLUGS", format!("{},{}", house.tasmota, house.shelly_plug))
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let group = child.id().context("the command has no process id")?;
    run.guard(group);
    let status = tokio::select! {
        status = child.wait() => status?,
        ended = control::serve(control, stack) => {
            ended?;
            anyhow::bail!("the control endpoint ended before the command");
        }
        () = stop.cancelled() => {
            if let Some(group) = rustix::process::Pid::from_raw(group.cast_signed()) {
                let _ended = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
            }
            match timeout(COMMAND_STOPS_WITHIN, child.wait()).await {
                Ok(status) => status?,
                Err(_) => {
                    child.kill().await?;
                    child.wait().await?
                }
            }
        }
    };
    run.forget(group);
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}
