//! The clock as the kernel has it: on a machine that is synchronised readings go at once, on one that is not they wait and
//! then say so. Steps of the clock are tried in the agent's own tests, where the clock is the test's.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use stack::mqtt::Publisher;
use telemetry::topic;

use crate::lone::{Lone, Options, record, with_kafka};

const WAIT: Duration = Duration::from_secs(3);

#[test]
fn readings_wait_for_the_kernels_clock_no_longer_than_told() -> Result<()> {
    with_kafka(async |kafka| {
        let name = "kernel-clock";
        let agent = Lone::start(
            name,
            Options {
                agent: Some(name),
                kafka: format!("bootstrap = \"{}\"", kafka.kafka.bootstrap()),
                more: "[clock]\nsource = \"kernel\"\nwait_seconds = 3\n",
                ..Options::default()
            },
        )
        .await?;
        let mut publisher = Publisher::connect(agent.mqtt, name).await?;
        let begin = Instant::now();
        // The acknowledgement does not wait for the time.
        publisher
            .publish("tele/kernel-clock/STATE", r#"{"POWER":"ON"}"#)
            .await?;
        let found = record(kafka, topic::PLUG, |r| r["device_id"] == "kernel-clock").await?;
        let waited = begin.elapsed();
        let status = agent
            .until("an empty buffer", |s| s["buffer"]["entries"] == 0)
            .await?;
        let clock = &status["clock"];
        ensure!(clock["steps"] == 0, "{clock}");
        let metrics = agent.page("/metrics").await?;
        ensure!(metrics.contains("edge_agent_clock_steps_total 0"), "{metrics}");
        if clock["synced"] == true {
            eprintln!("the kernel's clock is synchronised");
            ensure!(
                found["clock"] == "synced" && clock["unsynced_messages"] == 0,
                "{found} {clock}"
            );
        } else {
            eprintln!("the kernel's clock is not synchronised");
            ensure!(
                found["clock"] == "unsynced" && clock["unsynced_messages"] == 1,
                "{found} {clock}"
            );
            ensure!(waited >= WAIT, "{waited:?}");
            ensure!(
                metrics.contains("edge_agent_forward_unsynced_messages_total 1"),
                "{metrics}"
            );
        }
        agent.part.stop().await;
        Ok(())
    })
}
