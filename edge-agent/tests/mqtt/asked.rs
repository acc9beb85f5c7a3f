//! What an operator hears: `edge-agent status`, `devices` and `dead-letters`, `/devices` and `/metrics`; and that no
//! secret is among it.

use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::timeout,
};

use super::{
    agent::{Agent, DEADLINE},
    client::Client,
    doors::write,
    process::Process,
    wire::{Connect, Message, Version::V3, Version::V5},
};

const PASSWORD: &str = "correct-horse-battery";

/// A page of the admin port.
async fn page(admin: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(admin).await.expect("the admin port listens");
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it is written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it is read");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    body.to_owned()
}

async fn ask(config: &std::path::Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-agent"));
    command
        .args(arguments)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    timeout(DEADLINE * 3, command.output())
        .await
        .expect("it ends in time")
        .expect("it runs")
}

async fn told(process: &Process, arguments: &[&str]) -> String {
    let output = ask(&process.config(), arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_who_was_sent_away_and_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hash = edge_agent::broker::hash_password(PASSWORD).expect("it hashes");
    let users = write(
        folder.path(),
        "users.toml",
        &format!(
            "[[users]]\nname = \"plug\"\npassword_hash = {hash:?}\n[[access]]\nrefuse_subscribe = [\"secret/#\"]\n"
        ),
    );
    let agent = Agent::start_with(&format!("users_file = {users:?}")).await;
    let connect = |id: &str, password: &str| Connect::new(V5, id).login("plug", password);
    let (mut client, _) = Client::connect_with(agent.mqtt, &connect("DVES_1", PASSWORD)).await;
    client.publish(Message::new("tele/plug/STATE", "{}", 1)).await;
    client.publish(Message::new("cmnd/plug/POWER", "ON", 1)).await;
    client.subscribe("secret/x", 0).await;
    let (_, refused) = Client::try_connect(agent.mqtt, &connect("guess", "wrong")).await;
    assert_eq!(refused.map(|welcome| welcome.code), Some(0x86));
    let mut broken = Client::connect(agent.mqtt, V3, "broken").await;
    broken.send([0xF0, 0]).await;
    broken.closed().await;
    let mut garbage = Client::open(agent.mqtt, V3).await;
    garbage.send(*b"GET / HTTP/1.1\r\n\r\n").await;
    garbage.closed().await;

    let status = agent
        .until("all of it is counted", |s| {
            let refusals = &s["mqtt"]["refusals"];
            ["publish", "subscribe", "login", "protocol", "connect"]
                .iter()
                .all(|reason| refusals[reason].as_u64() == Some(1))
        })
        .await;
    let text = page(agent.admin, "/devices").await;
    let devices: Value = serde_json::from_str(&text).expect("JSON");
    let clients = devices["clients"].as_array().expect("a list");
    let known = |id: &str| clients.iter().find(|client| client["client_id"] == id);
    let plug = known("DVES_1").expect("it came");
    assert_eq!(
        (&plug["user"], &plug["version"], &plug["connected"]),
        (&"plug".into(), &"5".into(), &true.into())
    );
    assert_eq!(plug["refused"]["count"], 2, "{plug}");
    assert_eq!(plug["refused"]["detail"], "secret/x");
    assert_eq!(known("broken").expect("it came")["connected"], false);
    assert_eq!(known("guess"), None, "one that was never let in is no client");
    let strangers = devices["not_let_in"].as_array().expect("a list");
    assert_eq!(strangers.len(), 1, "all came from one address");
    assert_eq!(
        (&strangers[0]["client_id"], &strangers[0]["refused"]["count"]),
        (&"guess".into(), &2.into())
    );
    // Scraped, by reason; and a page of one answer is whole however often it is asked for.
    let metrics = page(agent.admin, "/metrics").await;
    for line in [
        "edge_agent_mqtt_refusals_total{reason=\"login\"} 1",
        "edge_agent_mqtt_refusals_total{reason=\"publish\"} 1",
        "edge_agent_mqtt_refusals_total{reason=\"will\"} 0",
        "edge_agent_buffer_committed_messages_per_second ",
        "edge_agent_forward_delivered_messages_per_second ",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    for text in [text, metrics, status.to_string()] {
        assert!(
            !text.contains(PASSWORD) && !text.contains(&hash),
            "a secret is shown"
        );
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_heard_who_is_there_and_what_was_not_decoded() {
    let agent = Agent::start().await;
    let mut client = Client::connect(agent.mqtt, V3, "house").await;
    for (topic, payload) in [
        ("kitchen/online", "true"),
        (
            "kitchen/events/rpc",
            r#"{"src":"shellyhtg3-e4b32322a0f4","method":"NotifyStatus","params":{"ts":1,"temperature:0":{"tC":21.3}}}"#,
        ),
        ("tele/plug/STATE", r#"{"POWER":"ON"}"#),
        ("tele/plug/LWT", "Offline"),
        ("attic/events/rpc", "garbage"),
        ("attic/events/rpc", "garbage again"),
    ] {
        client.publish(Message::new(topic, payload, 1)).await;
    }
    // They are looked at on their way out, whether Redpanda is there or not.
    let devices = |status: &Value| status["devices"].as_array().map_or(0, Vec::len);
    let status = agent.until("both are known", |s| devices(s) == 2).await;
    let shelly = &status["devices"][1];
    assert_eq!(shelly["device_id"], "shellyhtg3-e4b32322a0f4", "by its own name");
    assert_eq!(shelly["presence"]["online"], true, "though its topic has another");
    let until = tokio::time::Instant::now() + DEADLINE;
    let metrics = loop {
        let metrics = page(agent.admin, "/metrics").await;
        if metrics.contains("edge_agent_device_online{device=\"plug\"} 0") {
            break metrics;
        }
        assert!(
            tokio::time::Instant::now() < until,
            "the plug's last will is missing in\n{metrics}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert!(
        metrics.contains("edge_agent_device_online{device=\"shellyhtg3-e4b32322a0f4\"} 1"),
        "{metrics}"
    );
    let seen = metrics
        .lines()
        .find_map(|line| line.strip_prefix("edge_agent_device_last_seen_timestamp_seconds{device=\"plug\"} "))
        .expect("it was heard");
    let ago = chrono::Utc::now().timestamp() as f64 - seen.parse::<f64>().expect("a number");
    assert!((-60.0..600.0).contains(&ago), "{seen} is no time of now");
    let until = tokio::time::Instant::now() + DEADLINE;
    loop {
        let devices: Value = serde_json::from_str(&page(agent.admin, "/devices").await).expect("JSON");
        let attic = &devices["not_decoded"]["attic/events/rpc"];
        if attic["count"] == 2 {
            assert!(
                attic["reason"].as_str().expect("a text").starts_with("not json"),
                "{attic}"
            );
            break;
        }
        assert!(tokio::time::Instant::now() < until, "not counted: {devices}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_devices_and_dead_letters_are_answered_or_say_why_not() {
    let mut process = Process::start("").await;
    let mut client = Client::connect(process.mqtt, V3, "asked").await;
    client
        .publish(Message::new("tele/plug/STATE", r#"{"POWER":"ON"}"#, 1))
        .await;
    let table = told(&process, &["status"]).await;
    for want in [
        "backlog       1 messages",
        "Redpanda      127.0.0.1:1",
        "clock         synchronised",
        "rate in",
    ] {
        assert!(table.contains(want), "{want:?} is missing in\n{table}");
    }
    let status: Value = serde_json::from_str(&told(&process, &["status", "--json"]).await).expect("JSON");
    assert_eq!(status["buffer"]["entries"], 1);
    let tables = told(&process, &["devices"]).await;
    assert!(
        tables.contains("asked") && tables.contains("NOT LET IN"),
        "{tables}"
    );
    let devices: Value = serde_json::from_str(&told(&process, &["devices", "--json"]).await).expect("JSON");
    assert_eq!(devices["clients"][0]["client_id"], "asked");
    // Redpanda is away: said, in bounded time, and nothing is lost by asking.
    for arguments in [&["dead-letters"][..], &["dead-letters", "--replay", "--json"]] {
        let output = ask(&process.config(), arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{said}");
        assert!(said.contains("cannot be read from Redpanda"), "{said}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let socket = std::fs::metadata(process.data_dir().join("control.sock")).expect("the control socket");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600, "for its owner alone");

    // Without an agent: what is wrong and what to do, and a code of its own.
    process.kill();
    for word in ["status", "devices", "dead-letters"] {
        let output = ask(&process.config(), &[word]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{said}");
        assert!(
            said.contains("is it running") && said.contains("systemctl status"),
            "{said}"
        );
        assert!(output.stdout.is_empty());
    }
    let missing = ask(std::path::Path::new("/does/not/exist.toml"), &["status"]).await;
    assert_eq!(missing.status.code(), Some(64));
    assert_eq!(
        ask(&process.config(), &["dead-letters", "--limit", "0"])
            .await
            .status
            .code(),
        Some(2)
    );
    // The socket of one that was killed is not in the way of the next.
    process.run().await;
    told(&process, &["status"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_and_no_payload_is_in_a_log_however_loud() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hash = edge_agent::broker::hash_password(PASSWORD).expect("it hashes");
    let users = format!("[[users]]\nname = \"plug\"\npassword_hash = {hash:?}\n");
    let users = write(folder.path(), "users.toml", &users);
    let process = Process::start_with_log(&format!("users_file = {users:?}"), "trace").await;
    let payload = "payload-of-a-person";
    for (id, password) in [("right", PASSWORD), ("wrong", "wrong-horse-battery")] {
        let connect =
            Connect::new(V5, id)
                .login("plug", password)
                .will("gone", b"last-words-of-a-person", 1, false);
        let (mut client, welcome) = Client::try_connect(process.mqtt, &connect).await;
        if welcome.is_some_and(|welcome| welcome.code == 0) {
            client.publish(Message::new("tele/plug/STATE", payload, 1)).await;
            client.publish(Message::new("cmnd/plug/POWER", payload, 1)).await;
            client.subscribe("#", 2).await;
        }
    }
    let said = process.said();
    assert!(said.contains("right"), "the log is loud: {said}");
    for secret in [
        PASSWORD,
        "wrong-horse-battery",
        &hash,
        payload,
        "last-words-of-a-person",
    ] {
        assert!(!said.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_word_has_help_with_its_exit_codes() {
    let nowhere = std::path::Path::new("/does/not/exist.toml");
    for word in ["status", "devices", "dead-letters"] {
        let output = ask(nowhere, &[word, "--help"]).await;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("--json"), "{said}");
        assert!(said.contains("Exit codes") && said.contains("69"), "{said}");
    }
    for word in ["run", "check", "hash-password"] {
        let output = ask(nowhere, &[word, "--help"]).await;
        assert!(output.status.success() && output.stdout.len() > 100, "{output:?}");
    }
}
