//! redpanda-sink against real Kafka and real PostgreSQL: every record once, whatever is killed, cut or poisoned.
//!
//! The tests share the broker, so every sink also meets the records of the other tests and must not mind. Each test has
//! a database of its own: what one sink loses, no other may write in its place. Tests that stop the broker have their own.

mod delivery;
mod faults;
mod outages;
mod poison;
mod replay;
mod world;

use anyhow::{Result, ensure};
use tokio::process::Command;

use world::{World, with_world};

#[test]
fn wrong_settings_end_it_with_64_and_name_the_variable() -> Result<()> {
    with_world(async |world: &'static World| {
        let check = async |pairs: &[(&str, &str)], wanted: &str| {
            let output = Command::new(&world.binary)
                .env_clear()
                .envs(pairs.iter().copied())
                .output()
                .await?;
            let log = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.code() == Some(64), "{pairs:?}: {:?}", output.status);
            ensure!(
                log.contains(wanted) && !log.contains("hidden"),
                "{pairs:?}: {log}"
            );
            Ok(())
        };
        let kafka = ("KAFKA_BOOTSTRAP", "127.0.0.1:1");
        let database = ("DATABASE_URL", "postgres://sink:hidden@127.0.0.1:1/telemetry");
        check(&[database], "KAFKA_BOOTSTRAP is not set").await?;
        check(&[kafka], "DATABASE_URL is not set").await?;
        check(&[kafka, ("DATABASE_URL", "hidden")], "DATABASE_URL is invalid").await?;
        check(&[kafka, database, ("DATABASE_URL_FILE", "/x")], "both set").await?;
        check(
            &[kafka, database, ("METRICS_ADDRESS", "9090")],
            "METRICS_ADDRESS is invalid",
        )
        .await
    })
}
