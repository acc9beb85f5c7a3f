//! All parts together.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use devices::Behaviour;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::gateway::{Gateway, Upstreams};
use crate::guardian::{self, Run};
use crate::house::{Devices, House, history};
use crate::issuer::TestIssuer;
use crate::kafka::{self, Kafka};
use crate::oidc::{self, Oidc};
use crate::part::Part;
use crate::postgres::Postgres;
use crate::{binaries, port, web};

/// A service starts in milliseconds; a busy two-core machine has been seen to need seconds.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// One household, one zone: the databases and the page get the same.
const TIME_ZONE: &str = "Europe/Stockholm";

/// What to bring up. The default is what a test of the way of a reading needs: one agent, real Kafka, every service, no
/// web page and no devices.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many edge-agents: `p0`, `p1`, ...
    pub agents: usize,
    /// Which broker.
    pub kafka: kafka::Choice,
    /// Whether to build and serve the web page behind the gateway.
    pub web: bool,
    /// The port the page is served on; by default any free one.
    pub web_port: Option<u16>,
    /// The port the first agent takes MQTT on; by default any free one.
    pub mqtt_port: Option<u16>,
    /// Whether the services also trust the tests' own issuer, which gives bad tokens of every sort.
    pub test_issuer: bool,
    /// Which simulated devices to run, if any.
    pub devices: Option<Devices>,
    /// Which device is where, beside the simulated ones: device id to location.
    pub locations: BTreeMap<String, String>,
    /// `EDGE_AGENT_*` variables for every agent.
    pub agent_environment: BTreeMap<String, String>,
    /// How long homelab-settings-api gives a device to confirm an attempt; by default the service's own time.
    pub command_wait: Option<Duration>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            agents: 1,
            kafka: kafka::Choice::Real,
            web: false,
            web_port: None,
            mqtt_port: None,
            test_issuer: false,
            devices: None,
            locations: BTreeMap::new(),
            agent_environment: BTreeMap::new(),
            command_wait: None,
        }
    }
}

/// The services of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// redpanda-sink.
    Sink,
    /// homelab-api.
    Api,
    /// homelab-settings-api.
    SettingsApi,
    /// energy-ws.
    Ws,
}

/// A service that runs.
#[derive(Debug)]
pub struct Running {
    part: Part,
    public: SocketAddr,
    admin: SocketAddr,
}

impl Running {
    /// Its process: to be stopped, killed, restarted.
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// Its public address. The sink has none and nobody listens there.
    pub fn public(&self) -> SocketAddr {
        self.public
    }

    /// Its admin address: `/livez`, `/readyz`, `/metrics`.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Waits until it says that it is ready, after a restart for instance.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ready(&self) -> Result<()> {
        self.part.ready_http(READY_WITHIN, self.admin, "/readyz").await
    }
}

/// An edge-agent that runs.
#[derive(Debug)]
pub struct Agent {
    name: String,
    part: Part,
    mqtt: SocketAddr,
    admin: SocketAddr,
}

impl Agent {
    /// `p0`, `p1`, ...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process: to be stopped, killed, restarted.
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// Where it takes MQTT.
    pub fn mqtt(&self) -> SocketAddr {
        self.mqtt
    }

    /// Its admin address: `/livez`, `/readyz`, `/metrics`, `/status`.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Waits until it says that it is ready, after a restart for instance.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ready(&self) -> Result<()> {
        self.part.ready_http(READY_WITHIN, self.admin, "/readyz").await
    }
}

/// Everything, running.
pub struct Stack {
    run: &'static Run,
    kafka: Kafka,
    postgres: Postgres,
    oidc: Oidc,
    test_issuer: Option<TestIssuer>,
    agents: Vec<Agent>,
    sink: Running,
    api: Running,
    settings_api: Running,
    ws: Running,
    gateway: Option<Gateway>,
    house: Option<House>,
}

impl Stack {
    /// Brings everything up, saying on standard error what it does. What had been started when something fails is ended
    /// by the guardian.
    ///
    /// # Errors
    /// One line about what is missing or does not start, and how to get it.
    pub async fn start(mut options: Options) -> Result<Stack> {
        let begin = Instant::now();
        let run = guardian::run()?;
        eprintln!("stack: logs in {}", run.folder().join("logs").display());
        let binaries = binaries::folder().await?;

        // The page's origin is known to the OpenID provider and to energy-ws before the page is served.
        let listener = TcpListener::bind(port::prefer(options.web_port)?)
            .await
            .context("the page's port is taken")?;
        let origin = format!("http://{}", listener.local_addr()?);

        let (kafka, postgres, oidc, page) = tokio::try_join!(
            step("Kafka", "ready", start_kafka(options.kafka.clone(), run)),
            step("PostgreSQL", "ready", start_postgres(run)),
            step("OpenID provider", "ready", start_oidc(run, &origin)),
            async {
                if options.web {
                    step("web page", "built", web::built()).await.map(Some)
                } else {
                    Ok(None)
                }
            },
        )?;
        let house = options
            .devices
            .map(|devices| Arc::new(devices::House::new(devices.seed)));
        if let (Some(house), Some(devices)) = (&house, options.devices) {
            history(&kafka, house, devices).await?;
        }
        let test_issuer = if options.test_issuer {
            Some(TestIssuer::start().await?)
        } else {
            None
        };
        let mut issuers = oidc.issuer().to_owned();
        if let Some(issuer) = &test_issuer {
            write!(issuers, ",{}", issuer.url())?;
        }

        if let Some(house) = &house {
            let simulated = devices::Inventory::of(house).locations();
            options.locations.extend(
                simulated
                    .into_iter()
                    .map(|(device, location)| (device, location.to_owned())),
            );
        }
        let launch = Launch {
            run,
            binaries: &binaries,
            kafka: &kafka,
            postgres: &postgres,
            issuers: &issuers,
            origin: &origin,
            command_wait: options.command_wait,
        };
        let (agents, sink, api, settings_api, ws) = tokio::try_join!(
            launch.agents(&options),
            launch.service(Service::Sink),
            launch.service(Service::Api),
            launch.service(Service::SettingsApi),
            launch.service(Service::Ws),
        )?;

        let gateway = match page {
            Some(page) => {
                let upstreams = Upstreams {
                    api: api.public,
                    settings: settings_api.public,
                    ws: ws.public,
                };
                Some(Gateway::start(listener, &page, oidc.issuer(), TIME_ZONE, upstreams).await?)
            }
            None => None,
        };
        let house = match (house, options.devices) {
            (Some(house), Some(devices)) => Some(House::start(house, devices.pace, agents[0].mqtt)),
            _ => None,
        };
        eprintln!(
            "stack: everything is up after {:.1} s",
            begin.elapsed().as_secs_f64()
        );
        Ok(Stack {
            run,
            kafka,
            postgres,
            oidc,
            test_issuer,
            agents,
            sink,
            api,
            settings_api,
            ws,
            gateway,
            house,
        })
    }

    /// The run: its folder and logs.
    pub fn run(&self) -> &'static Run {
        self.run
    }

    /// The broker.
    pub fn kafka(&self) -> &Kafka {
        &self.kafka
    }

    /// The database server.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The OpenID provider.
    pub fn oidc(&self) -> &Oidc {
        &self.oidc
    }

    /// The tests' own issuer, when it was asked for.
    ///
    /// # Errors
    /// When it was not.
    pub fn test_issuer(&self) -> Result<&TestIssuer> {
        self.test_issuer
            .as_ref()
            .context("the stack was started without Options::test_issuer")
    }

    /// An access token from the OpenID provider.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn token(&self, scopes: &[&str]) -> Result<String> {
        self.oidc.token(scopes).await
    }

    /// The edge-agents, `p0` first.
    pub fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// Where the first agent takes MQTT.
    pub fn mqtt(&self) -> SocketAddr {
        self.agents[0].mqtt
    }

    /// A service.
    pub fn service(&self, service: Service) -> &Running {
        match service {
            Service::Sink => &self.sink,
            Service::Api => &self.api,
            Service::SettingsApi => &self.settings_api,
            Service::Ws => &self.ws,
        }
    }

    /// homelab-api, `http://127.0.0.1:...`.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api.public)
    }

    /// homelab-settings-api, `http://127.0.0.1:...`.
    pub fn settings_url(&self) -> String {
        format!("http://{}", self.settings_api.public)
    }

    /// energy-ws, `ws://127.0.0.1:.../ws/energy`.
    pub fn ws_url(&self) -> String {
        format!("ws://{}/ws/energy", self.ws.public)
    }

    /// The web page.
    ///
    /// # Errors
    /// When it was not asked for.
    pub fn web_url(&self) -> Result<&str> {
        let gateway = self
            .gateway
            .as_ref()
            .context("the stack was started without Options::web")?;
        Ok(gateway.origin())
    }

    /// What the simulated devices measure.
    ///
    /// # Errors
    /// When none were asked for.
    pub fn house(&self) -> Result<&devices::House> {
        let house = self
            .house
            .as_ref()
            .context("the stack was started without Options::devices")?;
        Ok(&house.house)
    }

    /// Begins the simulated house in a stack that was started without: its history, and then its devices. Their locations are those that
    /// the agents were started with.
    ///
    /// # Errors
    /// When there is one already, or the broker does not take its history.
    pub async fn begin_house(&mut self, devices: Devices) -> Result<()> {
        anyhow::ensure!(self.house.is_none(), "the simulated house is there already");
        let house = Arc::new(devices::House::new(devices.seed));
        history(&self.kafka, &house, devices).await?;
        self.house = Some(House::start(house, devices.pace, self.mqtt()));
        Ok(())
    }

    /// Changes what the simulated heat pump does with what is written to it.
    ///
    /// # Errors
    /// When there is no simulated house.
    pub fn tell_pump(&self, behaviour: Behaviour) -> Result<()> {
        let house = self.house.as_ref().context("there is no simulated house")?;
        house.pump.send_replace(behaviour);
        Ok(())
    }

    /// Changes what the simulated plugs do with commands.
    ///
    /// # Errors
    /// When there is no simulated house.
    pub fn tell_plugs(&self, behaviour: Behaviour) -> Result<()> {
        let house = self.house.as_ref().context("there is no simulated house")?;
        house.plugs.send_replace(behaviour);
        Ok(())
    }

    /// The services, in no order.
    pub fn services(&self) -> [&Running; 4] {
        [&self.sink, &self.api, &self.settings_api, &self.ws]
    }

    /// The processes that a test may stop and start: services, agents, and the OpenID provider.
    pub fn parts(&self) -> Vec<&Part> {
        let services = self.services().map(Running::part);
        let agents = self.agents.iter().map(Agent::part);
        services
            .into_iter()
            .chain(agents)
            .chain([self.oidc.part()])
            .collect()
    }

    /// A connection string for a role of a database: `telemetry` has `sink` and `api`, `homelab_settings` has `settings`.
    pub fn database_url(&self, role: &str, database: &str) -> String {
        self.postgres.url(role, database)
    }

    /// Takes everything down, in the order that lets each part finish.
    pub async fn stop(mut self) {
        eprintln!("stack: stopping");
        if let Some(house) = self.house.take() {
            house.stop().await;
        }
        if let Some(gateway) = &self.gateway {
            gateway.stop().await;
        }
        futures_util::future::join_all(self.agents.iter().map(|agent| agent.part.stop())).await;
        let services = self.services().map(|service| service.part.stop());
        futures_util::future::join_all(services).await;
        if let Some(mut issuer) = self.test_issuer {
            issuer.stop().await;
        }
        tokio::join!(self.oidc.part().stop(), self.kafka.stop(), self.postgres.stop());
    }
}

async fn start_kafka(choice: kafka::Choice, run: &Run) -> Result<Kafka> {
    let kafka = Kafka::choose(choice, &run.data("kafka")?).await?;
    kafka.create_topics(&telemetry::topic::ALL).await?;
    Ok(kafka)
}

async fn start_postgres(run: &Run) -> Result<Postgres> {
    Postgres::start(&run.data("postgres")?).await
}

async fn start_oidc(run: &Run, origin: &str) -> Result<Oidc> {
    Oidc::start(&run.data("oidc")?, &[origin.to_owned()]).await
}

/// Says when a part is there and how long it took; the name goes into the error when it is not.
pub(crate) async fn step<T>(name: &str, done: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let begin = Instant::now();
    eprintln!("stack: {name} ...");
    let value = work.await.with_context(|| name.to_owned())?;
    eprintln!("stack: {name} {done} in {:.1} s", begin.elapsed().as_secs_f64());
    Ok(value)
}

/// What every service of this run is started with.
struct Launch<'a> {
    run: &'static Run,
    binaries: &'a Path,
    kafka: &'a Kafka,
    postgres: &'a Postgres,
    issuers: &'a str,
    origin: &'a str,
    command_wait: Option<Duration>,
}

impl Launch<'_> {
    async fn service(&self, service: Service) -> Result<Running> {
        let (name, database, reads_kafka) = match service {
            Service::Sink => ("redpanda-sink", Some(("sink", "telemetry")), true),
            Service::Api => ("homelab-api", Some(("api", "telemetry")), false),
            Service::SettingsApi => (
                "homelab-settings-api",
                Some(("settings", "homelab_settings")),
                true,
            ),
            Service::Ws => ("energy-ws", None, true),
        };
        let (public, admin) = (port::free()?, port::free()?);
        let mut command = self.command(name)?;
        command.env("METRICS_ADDRESS", admin.to_string());
        if service != Service::Sink {
            command
                .env("LISTEN_ADDRESS", public.to_string())
                .env("OIDC_ISSUERS", self.issuers)
                .env("OIDC_AUDIENCES", oidc::AUDIENCE);
        }
        if let Some((role, database)) = database {
            command.env("DATABASE_URL", self.postgres.url(role, database));
        }
        if reads_kafka {
            command.env("KAFKA_BOOTSTRAP", self.kafka.bootstrap());
            if self.kafka.is_shared() {
                // Another stack's services may be on that broker, and would get half of our records.
                command.env("KAFKA_GROUP", format!("{name}-{}", self.run.id()));
            }
        }
        if service == Service::Ws {
            command.env("ALLOWED_ORIGINS", self.origin);
        }
        if let (Service::SettingsApi, Some(wait)) = (service, self.command_wait) {
            command.env("COMMAND_WAIT_SECONDS", wait.as_secs().to_string());
        }
        step(name, "ready", async {
            let running = Running {
                part: Part::start(name, command).await?,
                public,
                admin,
            };
            running.ready().await?;
            Ok(running)
        })
        .await
    }

    async fn agents(&self, options: &Options) -> Result<Vec<Agent>> {
        let agents = (0..options.agents).map(|number| self.agent(number, options));
        futures_util::future::try_join_all(agents).await
    }

    async fn agent(&self, number: usize, options: &Options) -> Result<Agent> {
        let name = format!("p{number}");
        let part_name = format!("edge-agent-{name}");
        let mqtt = port::prefer(options.mqtt_port.filter(|_| number == 0))?;
        let admin = port::free()?;
        let folder = self.run.data(&part_name)?;
        let config = folder.join("edge-agent.toml");
        std::fs::write(
            &config,
            self.agent_config(&name, &folder.join("data"), mqtt, admin, options)?,
        )?;
        let mut command = self.command("edge-agent")?;
        command
            .args(["run", "--config"])
            .arg(&config)
            .envs(&options.agent_environment);
        step(&part_name, "ready", async {
            let agent = Agent {
                part: Part::start(&part_name, command).await?,
                name,
                mqtt,
                admin,
            };
            agent.ready().await?;
            Ok(agent)
        })
        .await
    }

    fn agent_config(
        &self,
        name: &str,
        data: &Path,
        mqtt: SocketAddr,
        admin: SocketAddr,
        options: &Options,
    ) -> Result<String> {
        let table = |key: &str, value: String| toml::Table::from_iter([(key.to_owned(), value.into())]);
        let locations = options
            .locations
            .iter()
            .map(|(device, location)| (device.clone(), location.clone().into()));
        let config = toml::Table::from_iter([
            ("agent".to_owned(), name.into()),
            ("data_dir".to_owned(), data.display().to_string().into()),
            ("mqtt".to_owned(), table("listen", mqtt.to_string()).into()),
            ("admin".to_owned(), table("listen", admin.to_string()).into()),
            (
                "kafka".to_owned(),
                toml::Table::from_iter([
                    ("bootstrap".to_owned(), self.kafka.bootstrap().into()),
                    // A broker that KAFKA_BOOTSTRAP names may be on another machine.
                    ("allow_plaintext".to_owned(), self.kafka.is_shared().into()),
                ])
                .into(),
            ),
            // The machine's clock is what the tests compare with, and a container's kernel never says it is synchronised.
            ("clock".to_owned(), table("source", "trusted".to_owned()).into()),
            ("locations".to_owned(), toml::Table::from_iter(locations).into()),
        ]);
        Ok(toml::to_string(&config)?)
    }

    /// A binary of this workspace with an environment of its own: nothing of the caller's configuration reaches it.
    fn command(&self, name: &str) -> Result<Command> {
        let program = self.binaries.join(name);
        anyhow::ensure!(
            program.is_file(),
            "{} is missing: cargo build --workspace --bins",
            program.display()
        );
        let mut command = Command::new(program);
        command.env_clear();
        for kept in ["PATH", "HOME", "TMPDIR", "TZ", "LANG"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command
            .env("LOG_FORMAT", "pretty")
            .env(
                "LOG_LEVEL",
                std::env::var("STACK_LOG_LEVEL").unwrap_or_else(|_| "info".to_owned()),
            )
            .env("HOUSEHOLD_TIME_ZONE", TIME_ZONE);
        Ok(command)
    }
}
