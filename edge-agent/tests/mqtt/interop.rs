//! Clients of other projects, each with a program of its own in `tests/interop`: Eclipse Paho for Python and MQTT.js, and
//! Mosquitto's tools over TLS; and rumqttc, which is a library. Plain, TLS and WebSocket; sessions over a kill of the agent.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::{process::Command, time::timeout};

use super::{
    doors::{Authority, write},
    process::{Process, free_port},
};

/// Some hundred exchanges on a busy machine.
const WITHIN: Duration = Duration::from_secs(180);

/// An agent with all three doors.
struct House {
    agent: Process,
    tls: u16,
    websocket: u16,
    ca_file: String,
    _keys: tempfile::TempDir,
}

impl House {
    async fn open() -> Self {
        let keys = tempfile::tempdir().expect("a temporary folder");
        let authority = Authority::new("house");
        let (certificate, key) = authority.sign("127.0.0.1");
        let certificate = write(keys.path(), "server.pem", &certificate);
        let key = write(keys.path(), "server.key", &key.serialize_pem());
        let ca_file = write(keys.path(), "ca.pem", &authority.pem());
        let (tls, websocket) = (free_port(), free_port());
        let agent = Process::start(&format!(
            "[mqtt.tls]\nlisten = \"127.0.0.1:{tls}\"\ncertificate_file = {certificate:?}\nkey_file = {key:?}\n\
             [mqtt.websocket]\nlisten = \"127.0.0.1:{websocket}\""
        ))
        .await;
        Self {
            agent,
            tls,
            websocket,
            ca_file,
            _keys: keys,
        }
    }

    /// What trusts its certificate.
    fn trusted(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(&self.ca_file).expect("it was written here");
        roots.add(authority).expect("it is a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_root_certificates(roots);
        Arc::new(builder.with_no_client_auth())
    }

    /// Everything a client is used for, then a session over a SIGKILL.
    async fn try_client(&mut self, program: &Path, script: &str) {
        let script = root().join("tests/interop").join(script);
        let port = self.agent.mqtt.port().to_string();
        let (tls, websocket) = (self.tls.to_string(), self.websocket.to_string());
        run(program, &script, &["all", &port, &tls, &websocket, &self.ca_file]).await;
        run(program, &script, &["begin", &port]).await;
        self.agent.kill();
        self.agent.run().await;
        run(program, &script, &["end", &port]).await;
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

async fn run(program: &Path, script: &Path, arguments: &[&str]) {
    let mut command = Command::new(program);
    command
        .arg(script)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(WITHIN, command.output())
        .await
        .unwrap_or_else(|_| panic!("{} {arguments:?} does not end", script.display()))
        .unwrap_or_else(|error| panic!("{}: {error}; make setup installs it", program.display()));
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}{}",
        script.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn paho_for_python() {
    let mut house = House::open().await;
    let python = root().join("target/tools/interop/bin/python");
    house.try_client(&python, "paho_client.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_js() {
    let mut house = House::open().await;
    // A newer Node than the distribution's, where `make setup` had to put one there.
    let own = root().join("target/tools/bin/node");
    let node = if own.is_file() { own } else { PathBuf::from("node") };
    house.try_client(&node, "mqttjs_client.js").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_over_tls_and_over_a_kill() {
    let mut house = House::open().await;
    let (plain, tls) = (house.agent.mqtt.port().to_string(), house.tls.to_string());
    let mosquitto = async |program: &str, port: &str, arguments: &[&str]| -> Output {
        let mut command = Command::new(program);
        command
            .args(["-h", "127.0.0.1", "-p", port])
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(WITHIN, command.output()).await.expect("it ends in time");
        let output = output.expect("mosquitto's clients are installed; make setup does that");
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        output
    };
    for version in ["311", "5"] {
        let session = ["-V", version, "-i", "kept", "-c", "-q", "2", "-t", "m/#"];
        let lasting: &[&str] = if version == "5" { &["-x", "100"] } else { &[] };
        let session = [&session[..], lasting].concat();
        mosquitto("mosquitto_sub", &plain, &[&session[..], &["-E"]].concat()).await;
        let encrypted = [
            "-V",
            version,
            "--cafile",
            &house.ca_file,
            "-q",
            "1",
            "-t",
            "m/tls",
            "-m",
            "kept",
        ];
        mosquitto("mosquitto_pub", &tls, &encrypted).await;
        house.agent.kill();
        house.agent.run().await;
        let one = [&session[..], &["-C", "1", "-W", "60"]].concat();
        let output = mosquitto("mosquitto_sub", &plain, &one).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "kept\n", "{version}");
        mosquitto(
            "mosquitto_sub",
            &plain,
            &["-V", version, "-i", "kept", "-t", "m/#", "-E"],
        )
        .await;
    }
}

/// rumqttc over TLS: a retained value, a shared subscription, and a session over a SIGKILL. Its two versions differ in their
/// paths alone.
macro_rules! rumqttc_over_tls_and_over_a_kill {
    ($test:ident, $($api:ident)::+, $($qos:ident)::+, $keep:expr) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn $test() {
            use $($api)::+::{AsyncClient, Event, EventLoop, Incoming, MqttOptions};
            use $($qos)::+::QoS;

            let mut house = House::open().await;
            let trusted = house.trusted();
            let port = house.tls;
            let connect = |id: &str| {
                let mut options = MqttOptions::new(id, "127.0.0.1", port);
                options.set_transport(rumqttc::Transport::Tls(rumqttc::TlsConfiguration::Rustls(
                    trusted.clone(),
                )));
                ($keep)(&mut options, id == "kept");
                AsyncClient::new(options, 10)
            };
            async fn next(events: &mut EventLoop) -> Incoming {
                loop {
                    let event = timeout(WITHIN, events.poll()).await.expect("in time");
                    if let Event::Incoming(packet) = event.expect("the connection holds") {
                        return packet;
                    }
                }
            }
            async fn texts(events: &mut EventLoop, count: usize) -> Vec<String> {
                let mut texts = Vec::new();
                while texts.len() < count {
                    if let Incoming::Publish(message) = next(events).await {
                        texts.push(String::from_utf8(message.payload.to_vec()).expect("text"));
                    }
                }
                texts.sort_unstable();
                texts
            }

            let (publisher, mut published) = connect("publisher");
            publisher
                .publish("kept/value", QoS::AtLeastOnce, true, "retained")
                .await
                .expect("room");
            while !matches!(next(&mut published).await, Incoming::PubAck(_)) {}

            let (subscriber, mut received) = connect("kept");
            subscriber
                .subscribe("kept/#", QoS::ExactlyOnce)
                .await
                .expect("room");
            subscriber
                .subscribe("$share/group/work", QoS::AtLeastOnce)
                .await
                .expect("room");
            assert_eq!(texts(&mut received, 1).await, ["retained"]);
            // Answers come in order: with this one both subscriptions are there.
            subscriber
                .publish("work", QoS::AtLeastOnce, false, "shared")
                .await
                .expect("room");
            assert_eq!(texts(&mut received, 1).await, ["shared"]);
            drop((subscriber, received));

            publisher
                .publish("kept/a", QoS::ExactlyOnce, false, "while away")
                .await
                .expect("room");
            while !matches!(next(&mut published).await, Incoming::PubComp(_)) {}
            drop((publisher, published));
            house.agent.kill();
            house.agent.run().await;

            let (_subscriber, mut received) = connect("kept");
            let Incoming::ConnAck(welcome) = next(&mut received).await else {
                panic!("the first packet is a CONNACK");
            };
            assert!(welcome.session_present);
            assert_eq!(texts(&mut received, 1).await, ["while away"]);
            let (other, mut received) = connect("other");
            other
                .subscribe("kept/value", QoS::AtMostOnce)
                .await
                .expect("room");
            assert_eq!(texts(&mut received, 1).await, ["retained"]);
        }
    };
}

rumqttc_over_tls_and_over_a_kill!(
    rumqttc_3_over_tls_and_over_a_kill,
    rumqttc,
    rumqttc,
    |options: &mut rumqttc::MqttOptions, kept: bool| {
        options.set_clean_session(!kept);
    }
);

rumqttc_over_tls_and_over_a_kill!(
    rumqttc_5_over_tls_and_over_a_kill,
    rumqttc::v5,
    rumqttc::v5::mqttbytes,
    |options: &mut rumqttc::v5::MqttOptions, kept: bool| {
        options.set_clean_start(!kept);
        options.set_session_expiry_interval(kept.then_some(100));
    }
);
