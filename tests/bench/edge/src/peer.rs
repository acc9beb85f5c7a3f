//! The same work by Mosquitto and Redpanda Connect: MQTT in, Kafka out.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use stack::part::Part;
use stack::{guardian, port};
use tokio::process::Command;

const READY_WITHIN: Duration = Duration::from_secs(30);

/// How the peer is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Persistence on, everything else as it comes.
    Default,
    /// Mosquitto writes its database after every change and drops nothing, Connect keeps its session and asks for every
    /// acknowledgement there is.
    Safest,
}

impl Care {
    /// In names of topics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Care::Default => "default",
            Care::Safest => "safest",
        }
    }
}

/// Both programs, running.
pub struct Peer {
    mosquitto: Part,
    connect: Part,
    http: SocketAddr,
    /// Where devices connect.
    pub mqtt: SocketAddr,
}

impl Peer {
    /// Starts both.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(connect: &Path, bootstrap: &str, topic: &str, care: Care) -> Result<Peer> {
        let folder = guardian::run()?.data(&format!("peer-{}", care.name()))?;
        let mqtt = port::free()?;
        let mut settings = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\n",
            mqtt.port(),
            folder.display()
        );
        // Started by root, Mosquitto would give its rights up and could not write its folder.
        settings.push_str("user root\n");
        if care == Care::Safest {
            writeln!(
                settings,
                "autosave_on_changes true\nautosave_interval 1\nmax_queued_messages 0"
            )?;
        }
        let file = folder.join("mosquitto.conf");
        std::fs::write(&file, settings)?;
        let mut command = Command::new(program()?);
        command.arg("-c").arg(&file);
        let mosquitto = Part::start(format!("mosquitto-{}", care.name()), command).await?;
        mosquitto
            .ready(READY_WITHIN, async || {
                tokio::net::TcpStream::connect(mqtt).await.is_ok()
            })
            .await?;

        let http = port::free()?;
        let mut input = json!({
            "urls": [format!("tcp://{mqtt}")],
            "topics": ["+/events/rpc"],
            "client_id": "connect",
        });
        let mut output = json!({
            "seed_brokers": [bootstrap],
            "topic": topic,
            "key": "${! meta(\"mqtt_topic\") }",
        });
        if care == Care::Safest {
            input["clean_session"] = json!(false);
            input["qos"] = json!(1);
            output["idempotent_write"] = json!(true);
        }
        let file = folder.join("connect.json");
        // YAML is a superset of JSON.
        let settings = json!({
            "http": {"address": http.to_string()},
            "logger": {"level": "WARN"},
            "input": {"mqtt": input},
            "output": {"kafka_franz": output},
        });
        std::fs::write(&file, settings.to_string())?;
        let mut command = Command::new(connect);
        command.arg("-c").arg(&file);
        let connect = Part::start(format!("connect-{}", care.name()), command).await?;
        let peer = Peer {
            mosquitto,
            connect,
            http,
            mqtt,
        };
        peer.ready().await?;
        Ok(peer)
    }

    async fn ready(&self) -> Result<()> {
        self.connect.ready_http(READY_WITHIN, self.http, "/ready").await
    }

    /// Process ids of both.
    ///
    /// # Errors
    /// When one has ended.
    pub async fn pids(&self) -> Result<Vec<u32>> {
        let mosquitto = self.mosquitto.pid().await.context("Mosquitto has ended")?;
        let connect = self.connect.pid().await.context("Connect has ended")?;
        Ok(vec![mosquitto, connect])
    }

    /// SIGKILL for both, and a new start.
    ///
    /// # Errors
    /// When one does not start again.
    pub async fn kill_and_restart(&self) -> Result<()> {
        tokio::join!(self.mosquitto.kill(), self.connect.kill());
        self.mosquitto.restart().await?;
        self.mosquitto
            .ready(READY_WITHIN, async || {
                tokio::net::TcpStream::connect(self.mqtt).await.is_ok()
            })
            .await?;
        self.connect.restart().await?;
        self.ready().await
    }

    /// Stops both.
    pub async fn stop(&self) {
        tokio::join!(self.mosquitto.stop(), self.connect.stop());
    }
}

/// Mosquitto's binary, which distributions keep out of a user's path.
///
/// # Errors
/// When it is not installed.
pub fn program() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join("mosquitto"))
        .find(|program| program.is_file())
        .context("Mosquitto is not installed")
}
