//! Commands on their way to a device: Kafka, edge-agent, MQTT, and the outcome back through Kafka into the database.

use std::time::Duration;

use anyhow::{Result, ensure};
use chrono::{TimeDelta, Utc};
use e2e::{WITHIN, with_stack};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use sqlx::{Connection, Row, postgres::PgConnection};
use stack::Stack;
use stack::mqtt::Publisher;
use stack::part::eventually;
use telemetry::{Command, CommandAction, DeviceId, WantedSettings, topic};
use tokio::sync::mpsc;

/// A plug that is switched, as the agent is to do it.
fn command(id: i64, attempt: u32, device: &str, action: CommandAction) -> Command {
    Command {
        id,
        attempt,
        agent: "p0".into(),
        device_id: DeviceId::parse(device).expect("test names are valid"),
        issued_at: Utc::now(),
        expires_at: Utc::now() + TimeDelta::minutes(10),
        action,
    }
}

fn send(stack: &Stack, command: &Command) -> Result<()> {
    let key = command.device_id.to_string();
    stack
        .kafka()
        .produce([(topic::COMMANDS, key, serde_json::to_string(command)?)].into_iter())?;
    Ok(())
}

/// Makes the agent know a device: only one that was heard can be commanded.
async fn hear(stack: &Stack, topic: &str, payload: &str) -> Result<()> {
    let mut publisher =
        Publisher::connect(stack.mqtt(), &format!("hear-{}", topic.replace('/', "-"))).await?;
    publisher.publish(topic, payload).await?;
    publisher.disconnect().await
}

/// What a device that listens on `topic` is told.
async fn listen(stack: &Stack, topic: &str) -> Result<mpsc::UnboundedReceiver<String>> {
    let agent = stack.mqtt();
    let mut options = MqttOptions::new(
        format!("listen-{}", topic.replace('/', "-")),
        agent.ip().to_string(),
        agent.port(),
    );
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut events) = AsyncClient::new(options, 16);
    client.subscribe(topic, QoS::AtLeastOnce).await?;
    let (sender, receiver) = mpsc::unbounded_channel();
    let (subscribed, wait) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        // The client lives as long as its connection.
        let _client = client;
        let mut subscribed = Some(subscribed);
        while let Ok(event) = events.poll().await {
            match event {
                Event::Incoming(Packet::SubAck(_)) => {
                    if let Some(subscribed) = subscribed.take() {
                        let _ = subscribed.send(());
                    }
                }
                Event::Incoming(Packet::Publish(message)) => {
                    let text = String::from_utf8_lossy(&message.payload).into_owned();
                    if sender.send(text).is_err() {
                        return;
                    }
                }
                _ => {}
            }
        }
    });
    wait.await?;
    Ok(receiver)
}

/// The outcomes the database has of a command, by attempt.
async fn outcomes(stack: &Stack, id: i64, count: usize) -> Result<Vec<(i64, String)>> {
    let mut database = PgConnection::connect(&stack.database_url("api", "telemetry")).await?;
    let statement =
        "select details from events where type = 'command_outcome' and (details->>'command_id')::bigint = $1
        order by (details->>'attempt')::bigint, time";
    let database = tokio::sync::Mutex::new(&mut database);
    eventually("outcomes", WITHIN, async || {
        let mut database = database.lock().await;
        let rows = sqlx::query(statement).bind(id).fetch_all(&mut **database).await?;
        let found: Vec<_> = rows
            .iter()
            .map(|row| {
                let details: serde_json::Value = row.try_get("details")?;
                let attempt = details["attempt"].as_i64().unwrap_or_default();
                Ok((
                    attempt,
                    details["outcome"].as_str().unwrap_or_default().to_owned(),
                ))
            })
            .collect::<Result<_>>()?;
        Ok((found.len() >= count).then_some(found))
    })
    .await
}

#[test]
fn a_tasmota_plug_is_switched_once_however_often_the_command_comes() -> Result<()> {
    with_stack(async |stack| {
        hear(stack, "tele/cmd-plug/STATE", r#"{"POWER":"OFF"}"#).await?;
        let mut told = listen(stack, "cmnd/cmd-plug/POWER").await?;
        let first = command(1001, 1, "cmd-plug", CommandAction::PlugPower { on: true });
        // The device has to be known before the command comes: the agent hears it on the way out.
        e2e::row(stack, "plug_status", "cmd-plug", |_| true).await?;
        send(stack, &first)?;
        send(stack, &first)?;
        let second = Command {
            attempt: 2,
            ..first.clone()
        };
        send(stack, &second)?;
        ensure!(
            outcomes(stack, 1001, 2).await? == [(1, "published".to_owned()), (2, "published".to_owned())]
        );
        ensure!(told.recv().await.as_deref() == Some("ON"));
        ensure!(told.recv().await.as_deref() == Some("ON"));
        ensure!(
            told.try_recv().is_err(),
            "a repeated attempt reaches the device once"
        );
        Ok(())
    })
}

#[test]
fn a_heat_pump_is_written_one_register_a_message() -> Result<()> {
    with_stack(async |stack| {
        hear(
            stack,
            "thermiq_heatpump/data",
            r#"{"Client_Name":"cmd-pump","d0":1,"d50":21}"#,
        )
        .await?;
        e2e::row(stack, "heatpump_status", "cmd-pump", |_| true).await?;
        let mut told = listen(stack, "thermiq_heatpump/write").await?;
        let settings = WantedSettings {
            indoor_target_c: Some(22),
            curve: Some(40),
            ..WantedSettings::default()
        };
        send(
            stack,
            &command(1002, 1, "cmd-pump", CommandAction::HeatpumpSettings { settings }),
        )?;
        ensure!(told.recv().await.as_deref() == Some(r#"{"d50":22}"#));
        ensure!(told.recv().await.as_deref() == Some(r#"{"d52":40}"#));
        ensure!(outcomes(stack, 1002, 1).await? == [(1, "published".to_owned())]);
        Ok(())
    })
}

#[test]
fn commands_that_cannot_be_done_are_answered_and_reach_nobody() -> Result<()> {
    with_stack(async |stack| {
        hear(stack, "tele/cmd-lonely/STATE", r#"{"POWER":"OFF"}"#).await?;
        e2e::row(stack, "plug_status", "cmd-lonely", |_| true).await?;
        let on = || CommandAction::PlugPower { on: true };
        send(stack, &command(1003, 1, "cmd-lonely", on()))?;
        ensure!(outcomes(stack, 1003, 1).await? == [(1, "no_subscriber".to_owned())]);

        let mut told = listen(stack, "cmnd/cmd-lonely/POWER").await?;
        let expired = Command {
            expires_at: Utc::now() - TimeDelta::seconds(1),
            ..command(1004, 1, "cmd-lonely", on())
        };
        send(stack, &expired)?;
        ensure!(outcomes(stack, 1004, 1).await? == [(1, "expired".to_owned())]);
        send(stack, &command(1005, 1, "cmd-never-heard", on()))?;
        ensure!(outcomes(stack, 1005, 1).await? == [(1, "refused".to_owned())]);
        let settings = CommandAction::HeatpumpSettings {
            settings: WantedSettings::default(),
        };
        send(stack, &command(1006, 1, "cmd-lonely", settings))?;
        ensure!(outcomes(stack, 1006, 1).await? == [(1, "refused".to_owned())]);
        let others = Command {
            agent: "p1".into(),
            ..command(1007, 1, "cmd-lonely", on())
        };
        send(stack, &others)?;
        send(stack, &command(1008, 1, "cmd-lonely", on()))?;
        ensure!(outcomes(stack, 1008, 1).await? == [(1, "published".to_owned())]);
        ensure!(
            outcomes(stack, 1007, 0).await?.is_empty(),
            "another agent's command is none of ours"
        );
        ensure!(told.recv().await.as_deref() == Some("ON"));
        ensure!(told.try_recv().is_err());
        Ok(())
    })
}
