//! Two relays of which one sends, and two agents of which one has the device.

use anyhow::{Context, Result, ensure};
use e2e::WITHIN;
use serde_json::json;
use sqlx::{Connection, PgConnection, Row};
use stack::part::eventually;

use crate::api::{Api, is_finished};
use crate::devices::{Heard, Simulated, WRITE};
use crate::{PATIENT, QUICK, Told};

impl Told {
    /// Two relays, of which one is killed. What is old enough goes when a relay begins.
    pub(crate) async fn two_relays(&self) -> Result<()> {
        let mut database = self.database().await?;
        sqlx::query(
            "insert into outbox (device_id, agent, kind, wanted, asked, status, requested_by, created_at, expires_at, finished_at)
             values ('old', 'p0', 'plug_power', '{\"on\": true}', '{}', 'failed', 'x', now() - interval '500 days',
                 now() - interval '499 days', now() - interval '499 days')",
        )
        .execute(&mut database)
        .await?;
        let one = Api::start(&self.stack, "settings-one", "two", QUICK).await?;
        let two = Api::start(&self.stack, "settings-two", "two", QUICK).await?;
        let writes = Heard::on(WRITE, self.stack.mqtt(), "writes-two").await?;
        let old = "select count(*) as rows from outbox where device_id = 'old'";
        let database = tokio::sync::Mutex::new(database);
        eventually("old rows are cleared away", WITHIN, async || {
            let mut database = database.lock().await;
            let rows: i64 = sqlx::query(old)
                .fetch_one(&mut *database)
                .await?
                .try_get("rows")?;
            Ok((rows == 0).then_some(()))
        })
        .await?;
        let active = eventually("one relay is active", WITHIN, async || {
            let (first, second) = (one.is_active().await?, two.is_active().await?);
            ensure!(!(first && second), "both relays are active");
            Ok((first != second).then_some(first))
        })
        .await?;
        let (active, idle) = if active { (one, two) } else { (two, one) };
        let first = idle.want(&self.pump, json!({"curve_plus_5": 5})).await?;
        idle.ends(first, "confirmed", 1)
            .await
            .context("accepted by the one, sent by the other")?;
        active.part.kill().await;
        let second = idle.want(&self.pump, json!({"curve_plus_5": 6})).await?;
        let command = idle.until(second, "the other takes over", |command| {
            command["finished_at"].is_string()
        });
        let command = command.await?;
        ensure!(
            command["status"] == "confirmed" && command["attempts"].as_i64() <= Some(3),
            "{command}"
        );
        ensure!(writes.of("d55", 5) == 1 && (1..=3).contains(&writes.of("d55", 6)));
        idle.part.stop().await;
        Ok(())
    }

    /// The database wakes the relay; where its word is lost, the relay looks by itself.
    pub(crate) async fn a_relay_that_is_woken_and_one_that_is_not(&self) -> Result<()> {
        const HOUR: &str = "3600";
        let times = |poll| [PATIENT, &[("OUTBOX_POLL_SECONDS", poll)]].concat();
        let api = self.api("woken", &times(HOUR)).await?;
        api.reported(&self.pump, "curve_plus_5", 6).await?;
        let id = api.want(&self.pump, json!({"curve_plus_5": 4})).await?;
        api.ends(id, "confirmed", 1).await.context("woken")?;
        api.part.stop().await;

        let mut owner =
            PgConnection::connect(&self.stack.database_url("postgres", "homelab_settings")).await?;
        let trigger: String =
            sqlx::query_scalar("select pg_get_functiondef('note_outbox_state()'::regprocedure)")
                .fetch_one(&mut owner)
                .await?;
        let mute = trigger.replace("pg_notify('outbox'", "pg_notify('nobody'");
        ensure!(mute != trigger, "{trigger}");
        sqlx::query(sqlx::AssertSqlSafe(mute)).execute(&mut owner).await?;
        let api = self.api("looks", &times("1")).await?;
        api.reported(&self.pump, "curve_plus_5", 4).await?;
        let id = api.want(&self.pump, json!({"curve_plus_5": 3})).await?;
        let outcome = api.until(id, "found without a word", is_finished).await;
        sqlx::query(sqlx::AssertSqlSafe(trigger))
            .execute(&mut owner)
            .await?;
        ensure!(outcome?["status"] == "confirmed");
        api.part.stop().await;
        Ok(())
    }

    /// A device that moves from one agent to the other while a command waits for it.
    pub(crate) async fn two_agents(&self) -> Result<()> {
        let api = self.api("agents", QUICK).await?;
        api.reported(&self.pump, "curve_plus_5", 3).await?;
        let id = self.until_nobody_listens(&api, 29).await?;
        let command = api
            .until(id, "waits", |command| {
                command["reason"] == "the device was not connected"
            })
            .await?;
        ensure!(command["agent"] == "p0", "{command}");
        let writes = Heard::on(WRITE, self.stack.agents()[1].mqtt(), "writes-agents").await?;
        let simulated = Simulated::at(self.stack.agents()[1].mqtt(), &self.house);
        let command = api.ends(id, "confirmed", 2).await.context("two agents")?;
        ensure!(command["agent"] == "p1", "{command}");
        ensure!(writes.of("d50", 29) == 1);
        drop(simulated);
        api.part.stop().await;
        Ok(())
    }
}
