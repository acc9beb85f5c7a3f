//! The agent as a process of its own, to be killed.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{net::TcpStream, time::Instant};

use super::{
    agent::DEADLINE,
    client::{Client, Welcome},
    wire::{Connect, Packet},
};

/// A running agent, or the place of one.
pub struct Process {
    data: tempfile::TempDir,
    pub mqtt: SocketAddr,
    pub admin: SocketAddr,
    child: Option<Child>,
    log_level: &'static str,
}

impl Process {
    /// `mqtt` is added to the section of that name.
    pub async fn start(mqtt: &str) -> Self {
        Self::start_with_log(mqtt, "warn").await
    }

    /// The same with another level of the log.
    pub async fn start_with_log(mqtt: &str, log_level: &'static str) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let (port, admin) = (free_port(), free_port());
        std::fs::write(data.path().join("panic"), "").expect("a file that names no part");
        let text = format!(
            "agent = \"test\"\ndata_dir = {:?}\n[mqtt]\nlisten = \"127.0.0.1:{port}\"\n{mqtt}\n\
             [admin]\nlisten = \"127.0.0.1:{admin}\"\n[kafka]\nbootstrap = \"127.0.0.1:1\"\n[clock]\nsource = \"trusted\"\n",
            data.path().join("data")
        );
        std::fs::write(data.path().join("edge-agent.toml"), text).expect("the configuration is written");
        let mut process = Self {
            data,
            mqtt: ([127, 0, 0, 1], port).into(),
            admin: ([127, 0, 0, 1], admin).into(),
            child: None,
            log_level,
        };
        process.run().await;
        process
    }

    /// Starts it and waits until it listens.
    pub async fn run(&mut self) {
        let child = Command::new(env!("CARGO_BIN_EXE_edge-agent"))
            .arg("run")
            .arg("--config")
            .arg(self.data.path().join("edge-agent.toml"))
            .env("LOG_LEVEL", self.log_level)
            .env("EDGE_AGENT_TEST_PANIC_FILE", self.data.path().join("panic"))
            .stdin(Stdio::null())
            .stderr(self.log())
            .spawn()
            .expect("the agent's binary runs");
        self.child = Some(child);
        let until = Instant::now() + DEADLINE;
        while TcpStream::connect(self.mqtt).await.is_err() {
            assert!(
                Instant::now() < until,
                "the agent does not listen: {}",
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> Stdio {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.data.path().join("log"))
            .expect("a log");
        file.into()
    }

    /// What it logged.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default()
    }

    /// Its configuration.
    pub fn config(&self) -> std::path::PathBuf {
        self.data.path().join("edge-agent.toml")
    }

    /// Its folder.
    pub fn data_dir(&self) -> std::path::PathBuf {
        self.data.path().join("data")
    }

    /// A part of it panics; answers the exit code.
    pub async fn die_of(&mut self, part: &str) -> Option<i32> {
        std::fs::write(self.data.path().join("panic"), part).expect("the file is written");
        let until = Instant::now() + DEADLINE;
        let mut child = self.child.take().expect("it runs");
        while Instant::now() < until {
            if let Some(status) = child.try_wait().expect("it was started here") {
                std::fs::write(self.data.path().join("panic"), "").expect("the file is written");
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.child = Some(child);
        panic!("it lives on without {part}: {}", self.said());
    }

    /// SIGKILL, and nothing is left running.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself, which the test finds out otherwise.
            let _ = child.kill();
            child.wait().expect("it was started here");
        }
    }

    /// Bytes it has written to disk since it was started.
    pub fn written_bytes(&self) -> u64 {
        let pid = self.child.as_ref().expect("it runs").id();
        let io = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("io")).expect("Linux");
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        line.and_then(|n| n.parse().ok()).expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// Connects as soon as somebody lets it in; `None` when nobody does before `until`.
pub async fn connect_until(
    address: SocketAddr,
    connect: &Connect,
    until: Instant,
) -> Option<(Client, Welcome)> {
    while Instant::now() < until {
        if let Ok(stream) = TcpStream::connect(address).await {
            // A connection that is lost at once is like none.
            let _ = stream.set_nodelay(true);
            let mut client = Client::over(stream, connect.version);
            if client.try_send(connect.write()).await
                && let Some(Packet::ConnAck {
                    present,
                    code: 0,
                    props,
                }) = client.recv().await
            {
                return Some((
                    client,
                    Welcome {
                        present,
                        code: 0,
                        props,
                    },
                ));
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}
