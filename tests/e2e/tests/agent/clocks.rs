//! The clock as the kernel has it: on a machine that is synchronised readings go at once, on one that is not they wait and
//! then say so. And one that steps before the eyes of a whole agent: libfaketime gives the process a wall clock that the test
//! sets, while its monotonic clock stays the kernel's. Cases that need a clock to the microsecond are the agent's own tests.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use stack::mqtt::Publisher;
use telemetry::topic;

use crate::lone::{Lone, Options, record, records, with_kafka};

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

/// A clock that is a little off for the time the test takes on a busy machine is still the clock that was meant.
const NEAR: TimeDelta = TimeDelta::minutes(2);

#[test]
fn a_wall_clock_that_steps_years_forward_and_back_costs_no_reading_and_each_keeps_its_own_time() -> Result<()>
{
    with_kafka(async |kafka| {
        let name = "stepping-clock";
        let folder = stack::guardian::run()?.data("stepping-clock-set")?;
        let clock = folder.join("offset");
        set(&clock, TimeDelta::zero())?;
        let agent = Lone::start(
            name,
            Options {
                agent: Some(name),
                kafka: format!("bootstrap = \"{}\"", kafka.kafka.bootstrap()),
                environment: vec![
                    ("LD_PRELOAD", libfaketime()?),
                    ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
                    ("FAKETIME_NO_CACHE", "1".into()),
                    ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
                ],
                ..Options::default()
            },
        )
        .await?;
        let mut publisher = Publisher::connect(agent.mqtt, name).await?;
        // A card of the year before last, a time server that errs, and the right time again.
        let offsets = [
            TimeDelta::zero(),
            TimeDelta::days(3 * 365),
            TimeDelta::days(-2),
            TimeDelta::zero(),
        ];
        for (steps, offset) in offsets.into_iter().enumerate() {
            set(&clock, offset)?;
            let seen = agent
                .until("the step", |status| status["clock"]["steps"] == steps)
                .await?;
            let begin = Utc::now() + offset;
            let device = format!("stepping-clock-{steps}");
            publisher
                .publish(&format!("tele/{device}/STATE"), r#"{"POWER":"ON"}"#)
                .await?;
            let found = record(kafka, topic::PLUG, move |r| r["device_id"] == device.as_str()).await?;
            let time = time(&found)?;
            ensure!(
                (time - begin).abs() < NEAR,
                "after {steps} steps {begin} was meant: {found}"
            );
            ensure!(found["clock"] == "synced", "{found} {seen}");
        }
        let status = agent
            .until("an empty buffer", |status| status["buffer"]["entries"] == 0)
            .await?;
        ensure!(status["clock"]["steps"] == 3, "{status}");
        ensure!(status["forward"]["dead_letters"] == 0, "{status}");
        let metrics = agent.page("/metrics").await?;
        ensure!(metrics.contains("edge_agent_clock_steps_total 3"), "{metrics}");
        // Each step is an event, once, with its size.
        let told: Vec<f64> = records(kafka, topic::EVENTS)
            .await?
            .iter()
            .filter(|event| event["agent"] == name && event["type"] == "clock_step")
            .filter_map(|event| event["step_seconds"].as_f64())
            .collect();
        let day = 86_400.0;
        let meant = [3.0 * 365.0 * day, -(3.0 * 365.0 + 2.0) * day, 2.0 * day];
        ensure!(told.len() == meant.len(), "{told:?}");
        for (told, meant) in told.iter().zip(meant) {
            ensure!((told - meant).abs() < 60.0, "{told} told, {meant} meant");
        }
        agent.part.stop().await;
        Ok(())
    })
}

fn time(record: &Value) -> Result<DateTime<Utc>> {
    let text = record["time"].as_str().context("a record has a time")?;
    Ok(text.parse()?)
}

/// Sets the agent's wall clock, by how far it is off. Written beside and renamed: the agent may read at any time.
fn set(clock: &Path, offset: TimeDelta) -> Result<()> {
    let beside = clock.with_extension("new");
    std::fs::write(&beside, format!("{:+}\n", offset.num_seconds()))?;
    std::fs::rename(&beside, clock)?;
    Ok(())
}

/// Where the library is, as its own program says.
fn libfaketime() -> Result<String> {
    let asked = std::process::Command::new("faketime")
        .args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"])
        .output()
        .context("faketime is missing: make setup")?;
    ensure!(asked.status.success(), "{asked:?}");
    Ok(String::from_utf8(asked.stdout)?.trim().to_owned())
}
