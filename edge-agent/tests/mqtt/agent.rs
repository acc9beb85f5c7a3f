//! Agents for tests: a whole one, and a broker alone whose disk the test plays.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use edge_agent::{
    broker::{Access, AddressLimits, Anonymous, Broker, Captured, Door as Spoken, Limits, Settings, Stats},
    clock::{Clock, SegmentId},
    config::Config,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// Whatever a test waits for comes within this, or the test fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A whole agent, in this process, with a Kafka that cannot be reached.
pub struct Agent {
    pub mqtt: SocketAddr,
    pub tls: Option<SocketAddr>,
    pub websocket: Option<SocketAddr>,
    pub admin: SocketAddr,
    /// Reads users and keys again.
    pub reload: Arc<tokio::sync::Notify>,
    stop: CancellationToken,
    running: Option<JoinHandle<anyhow::Result<()>>>,
    _data: tempfile::TempDir,
}

impl Agent {
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// `mqtt` is added to the section of that name.
    pub async fn start_with(mqtt: &str) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let text = format!(
            "agent = \"test\"\ndata_dir = {:?}\n[mqtt]\nlisten = \"127.0.0.1:0\"\n{mqtt}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n[kafka]\nbootstrap = \"127.0.0.1:1\"\n[clock]\nsource = \"trusted\"\n",
            data.path().join("data")
        );
        let file = data.path().join("edge-agent.toml");
        std::fs::write(&file, text).expect("the configuration is written");
        let config = Config::load(&file, |_| None).expect("the configuration is sound");
        let agent = edge_agent::build(config).await.expect("the agent opens");
        let (mqtt, admin) = (
            agent.mqtt_address().expect("bound"),
            agent.admin_address().expect("bound"),
        );
        let (tls, websocket, reload) = (agent.tls_address(), agent.websocket_address(), agent.reload());
        let stop = CancellationToken::new();
        let running = tokio::spawn(agent.run(stop.clone()));
        Self {
            mqtt,
            tls,
            websocket,
            admin,
            reload,
            stop,
            running: Some(running),
            _data: data,
        }
    }

    /// What `/status` says.
    pub async fn status(&self) -> serde_json::Value {
        status(self.admin).await
    }

    /// Waits until `/status` satisfies `wanted`.
    pub async fn until(&self, what: &str, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        status_until(self.admin, what, wanted).await
    }

    /// The agent has run until now without a failure, and ends when it is told to.
    pub async fn stop(mut self) {
        let running = self.running.take().expect("it is stopped once");
        assert!(!running.is_finished(), "the agent ended by itself");
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, running)
            .await
            .expect("the agent stops in time")
            .expect("no panic")
            .expect("no failure");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn status(admin: SocketAddr) -> serde_json::Value {
    let mut stream = TcpStream::connect(admin).await.expect("the admin port listens");
    stream
        .write_all(b"GET /status HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .await
        .expect("the request is written");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("the answer is read");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).expect("JSON")
}

/// Waits until `/status` satisfies `wanted`.
pub async fn status_until(
    admin: SocketAddr,
    what: &str,
    wanted: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let until = tokio::time::Instant::now() + DEADLINE;
    loop {
        let status = status(admin).await;
        if wanted(&status) {
            return status;
        }
        assert!(tokio::time::Instant::now() < until, "{what}: {status:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A broker without a buffer: the test answers for the disk.
pub struct Door {
    pub mqtt: SocketAddr,
    pub broker: Arc<Broker>,
    pub captured: mpsc::Receiver<Captured>,
    stop: CancellationToken,
}

impl Door {
    /// Captures `captured/#`.
    pub async fn open() -> Self {
        Self::open_with(Limits::default(), 1_000).await
    }

    pub async fn open_with(limits: Limits, max_connections: usize) -> Self {
        let settings = Settings {
            access: Access::new(Anonymous::Loopback),
            captures: Box::new(|topic| topic.starts_with("captured/")),
            max_connections,
            address_limits: AddressLimits::default(),
            store: None,
            alive: Box::new(|| {}),
        };
        let (broker, captured) = Broker::with_limits(settings, limits, Arc::new(Clock::new(SegmentId(1))));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mqtt = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        tokio::spawn(
            broker
                .clone()
                .serve(vec![(listener, Spoken::Plain)], stop.clone()),
        );
        Self {
            mqtt,
            broker,
            captured,
            stop,
        }
    }

    /// The next message for the disk.
    pub async fn next(&mut self) -> Captured {
        tokio::time::timeout(DEADLINE, self.captured.recv())
            .await
            .expect("a captured message in time")
            .expect("the broker is there")
    }

    /// Waits until the broker's figures satisfy `wanted`.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Stats) -> bool) {
        let until = tokio::time::Instant::now() + DEADLINE;
        loop {
            let stats = self.broker.stats();
            if wanted(&stats) {
                return;
            }
            assert!(tokio::time::Instant::now() < until, "{what}: {stats:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
