//! Clients that people use: rumqttc, and the command line tools of Mosquitto.

use std::{
    net::SocketAddr,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use super::agent::{Agent, DEADLINE};

#[tokio::test(flavor = "multi_thread")]
async fn rumqttc_for_version_3() {
    use rumqttc::{AsyncClient, Event, LastWill, MqttOptions, Packet, QoS};
    let agent = Agent::start().await;
    let options = |id: &str| {
        let mut options = MqttOptions::new(id, "127.0.0.1", agent.mqtt.port());
        options.set_keep_alive(Duration::from_secs(5));
        options
    };
    let mut dying = options("dying");
    dying.set_last_will(LastWill::new("gone", "bye", QoS::ExactlyOnce, false));
    let (client, mut events) = AsyncClient::new(dying, 10);
    client
        .publish("p/events/rpc", QoS::AtLeastOnce, false, "{}")
        .await
        .unwrap();
    loop {
        let event = timeout(DEADLINE, events.poll()).await.unwrap().unwrap();
        if matches!(event, Event::Incoming(Packet::PubAck(_))) {
            break;
        }
    }
    let (subscriber, mut received) = AsyncClient::new(options("subscriber"), 10);
    subscriber.subscribe("#", QoS::ExactlyOnce).await.unwrap();
    while !matches!(
        timeout(DEADLINE, received.poll()).await.unwrap().unwrap(),
        Event::Incoming(Packet::SubAck(_))
    ) {}
    for (qos, text) in [
        (QoS::AtMostOnce, "zero"),
        (QoS::AtLeastOnce, "one"),
        (QoS::ExactlyOnce, "two"),
    ] {
        subscriber.publish("a", qos, false, text).await.unwrap();
    }
    drop((client, events));
    let mut texts = Vec::new();
    while texts.len() < 4 {
        if let Event::Incoming(Packet::Publish(p)) =
            timeout(DEADLINE, received.poll()).await.unwrap().unwrap()
        {
            texts.push(String::from_utf8(p.payload.to_vec()).unwrap());
        }
    }
    texts.sort_unstable();
    assert_eq!(texts, ["bye", "one", "two", "zero"]);
    agent
        .until("it is captured", |s| s["buffer"]["entries"] == 1)
        .await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rumqttc_for_version_5() {
    use rumqttc::v5::{
        AsyncClient, Event, Incoming, MqttOptions,
        mqttbytes::{QoS, v5::PublishProperties},
    };
    let agent = Agent::start().await;
    let mut options = MqttOptions::new("client", "127.0.0.1", agent.mqtt.port());
    options.set_keep_alive(Duration::from_secs(5));
    options.set_topic_alias_max(Some(10));
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe("#", QoS::ExactlyOnce).await.unwrap();
    let properties = PublishProperties {
        user_properties: vec![("a".into(), "1".into())],
        topic_alias: Some(3),
        ..PublishProperties::default()
    };
    for (qos, text) in [(QoS::AtLeastOnce, "one"), (QoS::ExactlyOnce, "two")] {
        client
            .publish_with_properties("a/b", qos, false, text, properties.clone())
            .await
            .unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 2 {
        if let Event::Incoming(Incoming::Publish(p)) =
            timeout(DEADLINE, events.poll()).await.unwrap().unwrap()
        {
            let properties = p.properties.expect("user properties");
            assert_eq!(properties.user_properties, [("a".to_owned(), "1".to_owned())]);
            seen.push((p.payload, properties.topic_alias));
        }
    }
    assert_eq!(seen, [("one".into(), Some(1)), ("two".into(), Some(1))]);
    agent.stop().await;
}

async fn mosquitto(program: &str, address: SocketAddr, version: &str, arguments: &[&str]) -> Output {
    let port = address.port().to_string();
    let mut command = Command::new(program);
    command
        .args(["-h", "127.0.0.1", "-p", &port, "-V", version])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    timeout(DEADLINE, command.output())
        .await
        .expect("it ends in time")
        .expect("mosquitto's clients are installed; `make setup` does that")
}

async fn publish(address: SocketAddr, version: &str, arguments: &[&str]) {
    let output = mosquitto("mosquitto_pub", address, version, arguments).await;
    assert!(output.status.success(), "{version} {arguments:?}: {output:?}");
}

/// What a subscriber prints, sorted.
async fn subscribe(address: SocketAddr, version: &str, arguments: &[&str]) -> Vec<String> {
    let output = mosquitto("mosquitto_sub", address, version, arguments).await;
    assert!(output.status.success(), "{version} {arguments:?}: {output:?}");
    let mut lines: Vec<_> = String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort_unstable();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquittos_tools() {
    let agent = Agent::start().await;
    for version in ["311", "5"] {
        // A session of its own outlives its connection.
        let mut kept = vec!["-t", "m/#", "-q", "2", "-i", "kept", "-c", "-v", "-W", "10"];
        if version == "5" {
            kept.extend(["-x", "100"]);
        }
        let begin = [&kept[..], &["-E"]].concat();
        assert!(subscribe(agent.mqtt, version, &begin).await.is_empty());
        for qos in ["0", "1", "2"] {
            publish(agent.mqtt, version, &["-t", "m/x", "-q", qos, "-m", qos]).await;
        }
        let two = [&kept[..], &["-C", "2"]].concat();
        assert_eq!(subscribe(agent.mqtt, version, &two).await, ["m/x 1", "m/x 2"]);
        // Retained, then cleared.
        for qos in ["0", "1", "2"] {
            let topic = format!("r/{qos}");
            publish(agent.mqtt, version, &["-t", &topic, "-q", qos, "-m", qos, "-r"]).await;
        }
        let retained = ["-t", "r/+", "-q", "1", "-F", "%t %p %r", "-C", "3", "-W", "10"];
        assert_eq!(
            subscribe(agent.mqtt, version, &retained).await,
            ["r/0 0 1", "r/1 1 1", "r/2 2 1"]
        );
        for qos in ["0", "1", "2"] {
            publish(
                agent.mqtt,
                version,
                &["-t", &format!("r/{qos}"), "-q", qos, "-n", "-r"],
            )
            .await;
        }
        agent.until("cleared", |s| s["mqtt"]["retained"] == 0).await;
        // Readings of a device, and a payload too large.
        publish(
            agent.mqtt,
            version,
            &["-t", "p/events/rpc", "-q", "1", "-m", "{}"],
        )
        .await;
        let large = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(large.path(), vec![b'x'; 300_000]).expect("written");
        let path = large.path().to_str().expect("text");
        publish(
            agent.mqtt,
            version,
            &["-t", "p/events/rpc", "-q", "2", "-f", path],
        )
        .await;
        // The will of a subscriber that is killed. A client before it may still be on its way out.
        agent
            .until("nobody is connected", |s| s["mqtt"]["connected"] == 0)
            .await;
        let port = agent.mqtt.port().to_string();
        let mut dying = Command::new("mosquitto_sub")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-V",
                version,
                "-t",
                "x",
                "-i",
                "dying",
            ])
            .args(["--will-topic", "w", "--will-payload", "bye", "--will-retain"])
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        agent.until("connected", |s| s["mqtt"]["connected"] == 1).await;
        dying.kill().await.expect("it is there");
        agent
            .until("the will is kept", |s| s["mqtt"]["retained"] == 1)
            .await;
        assert_eq!(
            subscribe(agent.mqtt, version, &["-t", "w", "-C", "1", "-W", "10"]).await,
            ["bye"]
        );
        publish(agent.mqtt, version, &["-t", "w", "-n", "-r"]).await;
    }
    // A thousand lines, each acknowledged, all there, in order.
    let port = agent.mqtt.port().to_string();
    let session = ["-t", "lines", "-q", "1", "-i", "lines", "-c", "-W", "15"];
    subscribe(agent.mqtt, "311", &[&session[..], &["-E"]].concat()).await;
    let lines: String = (0..1_000).map(|n| format!("{n}\n")).collect();
    let mut publisher = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port, "-t", "lines", "-q", "1", "-l"])
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut stdin = publisher.stdin.take().expect("piped");
    tokio::io::AsyncWriteExt::write_all(&mut stdin, lines.as_bytes())
        .await
        .expect("it reads");
    drop(stdin);
    let ended = timeout(DEADLINE, publisher.wait()).await.expect("in time");
    assert!(ended.expect("it ran").success());
    let all = [&session[..], &["-C", "1000"]].concat();
    let output = mosquitto("mosquitto_sub", agent.mqtt, "311", &all).await;
    assert_eq!(String::from_utf8(output.stdout).expect("text"), lines);
    assert_eq!(agent.status().await["buffer"]["entries"], 4);
    agent.stop().await;
}
