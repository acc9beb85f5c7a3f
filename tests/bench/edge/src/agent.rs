//! The agent that is measured: its process, and what it says of itself.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stack::part::Part;
use stack::{guardian, port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

const READY_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// A running agent, with the settings it ships with.
pub struct Agent {
    part: Part,
    admin: SocketAddr,
    /// Where devices connect.
    pub mqtt: SocketAddr,
}

impl Agent {
    /// Starts it with an empty buffer.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start(binary: &Path, bootstrap: &str) -> Result<Agent> {
        let (mqtt, admin) = (port::free()?, port::free()?);
        let folder = guardian::run()?.data("edge-agent")?;
        let file = folder.join("edge-agent.toml");
        std::fs::write(
            &file,
            format!(
                "agent = \"p0\"\ndata_dir = {:?}\n[mqtt]\nlisten = \"{mqtt}\"\n[admin]\nlisten = \"{admin}\"\n\
                 [kafka]\nbootstrap = {bootstrap:?}\n[clock]\nsource = \"trusted\"\n",
                folder.join("data")
            ),
        )?;
        let mut command = Command::new(binary);
        command.args(["run", "--config"]).arg(&file);
        let part = Part::start("edge-agent", command).await?;
        let agent = Agent { part, admin, mqtt };
        agent.ready().await?;
        Ok(agent)
    }

    async fn ready(&self) -> Result<()> {
        self.part.ready_http(READY_WITHIN, self.admin, "/readyz").await
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn pid(&self) -> Result<u32> {
        self.part.pid().await.context("the agent has ended")
    }

    /// SIGKILL and a new start; answers how long that took until it was ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn kill_and_restart(&self) -> Result<Duration> {
        self.part.kill().await;
        let begin = Instant::now();
        self.part.restart().await?;
        self.ready().await?;
        Ok(begin.elapsed())
    }

    /// Messages in its buffer.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn backlog(&self) -> Result<u64> {
        let mut stream = TcpStream::connect(self.admin).await?;
        stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        let status: Value = serde_json::from_str(body)?;
        status["buffer"]["entries"]
            .as_u64()
            .context("no entries in /status")
    }

    /// Waits until at most `left` messages are in its buffer.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn drained(&self, left: u64, within: Duration) -> Result<Instant> {
        let begin = Instant::now();
        loop {
            let backlog = self.backlog().await?;
            if backlog <= left {
                return Ok(Instant::now());
            }
            ensure!(begin.elapsed() < within, "{backlog} messages are still there");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Stops it.
    pub async fn stop(&self) {
        self.part.stop().await;
    }
}
