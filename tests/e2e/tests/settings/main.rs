//! Command stories: from PATCH through PostgreSQL, Kafka, edge-agent and MQTT to a simulated device, and back by its telemetry.
//! Each ends in the documented state, and the device gets the value at most as often as documented.
//!
//! The stories share one heat pump and two plugs and are told one after the other, each with values of its own: `pump` and
//! `plugs` with devices of every behaviour, `killed` with parts that die, `agents` with two relays and two agents.

mod agents;
mod api;
mod devices;
mod killed;
mod plugs;
mod pump;

use std::path::PathBuf;
use std::sync::Arc;

use ::devices::{House, Inventory};
use anyhow::Result;
use e2e::WITHIN;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use stack::part::eventually;
use stack::{Options, Service, Stack, guardian};

use crate::api::Api;
use crate::devices::Simulated;

/// Times of the settings API that a test can wait for.
const QUICK: &[(&str, &str)] = &[("COMMAND_WAIT_SECONDS", "5"), ("COMMAND_EXPIRY_SECONDS", "90")];
/// Where the first attempt must do, on a slow machine as well.
const PATIENT: &[(&str, &str)] = &[("COMMAND_WAIT_SECONDS", "45"), ("COMMAND_EXPIRY_SECONDS", "180")];
const SHORT_LIVED: &[(&str, &str)] = &[("COMMAND_WAIT_SECONDS", "3"), ("COMMAND_EXPIRY_SECONDS", "15")];

/// What the stories share.
struct Told {
    stack: Stack,
    house: Arc<House>,
    pump: String,
    /// The agent that finds this file dies once it has recorded an attempt (edge-agent/src/command.rs).
    die_file: PathBuf,
}

#[test]
fn command_stories() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let die_file = guardian::run()?.data("faults")?.join("die");
        let mut options = Options {
            agents: 2,
            test_issuer: true,
            ..Options::default()
        };
        let file = die_file.display().to_string();
        options
            .agent_environment
            .insert("EDGE_AGENT_TEST_DIE_FILE".to_owned(), file);
        let stack = Stack::start(options).await?;
        // The stories have settings APIs of their own, and only one sends commands.
        stack.service(Service::SettingsApi).part().stop().await;
        let house = Arc::new(House::new(5));
        let pump = Inventory::of(&house).pump;
        let told = Told {
            stack,
            house,
            pump,
            die_file,
        };
        let simulated = Simulated::at(told.stack.mqtt(), &told.house);
        let api = told.api("there", QUICK).await?;
        tokio::try_join!(
            told.a_pump_that_is_there(&api, &simulated),
            told.plugs_of_every_behaviour(&api, &simulated),
            told.plugs_of_several_channels(&api),
        )?;
        told.a_schedule_that_is_due(&api).await?;
        api.part.stop().await;
        told.a_pump_that_goes_away(&simulated).await?;
        told.devices_that_say_what_we_want().await?;
        told.an_api_that_is_killed().await?;
        told.an_agent_that_dies_between_recording_and_publishing().await?;
        told.a_database_that_no_longer_answers().await?;
        told.two_relays().await?;
        told.a_relay_that_is_woken_and_one_that_is_not().await?;
        drop(simulated);
        told.two_agents().await?;
        told.stack.stop().await;
        Ok(())
    })
}

impl Told {
    /// A settings API of its own, which reads the topics from their beginning.
    async fn api(&self, name: &str, times: &[(&str, &str)]) -> Result<Api> {
        Api::start(&self.stack, &format!("settings-{name}"), name, times).await
    }

    async fn database(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.stack.database_url("settings", "homelab_settings")).await?)
    }

    /// The changes of a command as events, which the sink has stored.
    async fn announced(&self, id: i64, wanted: &[&str]) -> Result<()> {
        let database = PgConnection::connect(&self.stack.database_url("api", "telemetry")).await?;
        let database = tokio::sync::Mutex::new(database);
        eventually("announcements", WITHIN, async || {
            let mut database = database.lock().await;
            let rows = sqlx::query(
                "select details->>'status' as status from events
                 where type = 'outbox_changed' and (details->>'outbox_id')::bigint = $1 order by time",
            )
            .bind(id)
            .fetch_all(&mut *database)
            .await?;
            let found: Vec<String> = rows
                .iter()
                .map(|row| Ok(row.try_get("status")?))
                .collect::<Result<_>>()?;
            Ok((found == wanted).then_some(()))
        })
        .await
    }
}
