//! Parts that are killed at the worst moment.

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use e2e::WITHIN;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use sqlx::Connection;
use stack::part::eventually;
use tokio::time::timeout;

use crate::api::Api;
use crate::devices::{Heard, WRITE};
use crate::{PATIENT, QUICK, Told};

/// The relay's lock (cluster/homelab-settings-api/src/relay).
const LOCK: i64 = 0x6b31_326e_6f75_7462;

impl Told {
    /// Killed between commit and publish, and between publish and mark.
    pub(crate) async fn an_api_that_is_killed(&self) -> Result<()> {
        let writes = Heard::on(WRITE, self.stack.mqtt(), "writes-killed").await?;
        let pump = self.pump.as_str();
        let mut lock = self.database().await?;
        sqlx::query("select pg_advisory_lock($1)")
            .bind(LOCK)
            .execute(&mut lock)
            .await?;
        let api = self.api("killed-1", PATIENT).await?;
        api.reported(pump, "curve", 44).await?;
        let id = api.want(pump, json!({"indoor_target_c": 26})).await?;
        api.part.kill().await;
        ensure!(writes.of("d50", 26) == 0);
        let api = self.api("killed-2", PATIENT).await?;
        sqlx::query("select pg_advisory_unlock($1)")
            .bind(LOCK)
            .execute(&mut lock)
            .await?;
        api.ends(id, "confirmed", 1)
            .await
            .context("killed between commit and publish")?;
        ensure!(writes.of("d50", 26) == 1);
        api.part.stop().await;

        // The mark cannot be made while somebody holds the row.
        sqlx::query("select pg_advisory_lock($1)")
            .bind(LOCK)
            .execute(&mut lock)
            .await?;
        let api = self.api("killed-3", PATIENT).await?;
        let id = api.want(pump, json!({"indoor_target_c": 27})).await?;
        let mut row = self.database().await?;
        let mut held = row.begin().await?;
        sqlx::query("select from outbox where id = $1 for update")
            .bind(id)
            .execute(&mut *held)
            .await?;
        sqlx::query("select pg_advisory_unlock($1)")
            .bind(LOCK)
            .execute(&mut lock)
            .await?;
        eventually("the write", WITHIN, async || {
            Ok((writes.of("d50", 27) > 0).then_some(()))
        })
        .await?;
        ensure!(api.command(id).await?["status"] == "pending");
        api.part.kill().await;
        self.end_what_waits_for_a_row().await?;
        // The next relay finds it unmarked and sends it again, while nobody can have told it that it is done.
        let repeats = self.repeated_commands().await?;
        let api = Api::begin(&self.stack, "settings-killed-4", "killed-4", PATIENT).await?;
        eventually("the agent gets it again", WITHIN, async || {
            Ok((self.repeated_commands().await? > repeats).then_some(()))
        })
        .await?;
        held.rollback().await?;
        api.ready().await?;
        api.ends(id, "confirmed", 1)
            .await
            .context("killed between publish and mark")?;
        ensure!(writes.of("d50", 27) == 1, "sent twice, done once");
        api.part.stop().await;
        Ok(())
    }

    /// A statement of a killed process goes on in the server where it waits for a row: it ends here, unmade.
    async fn end_what_waits_for_a_row(&self) -> Result<()> {
        let database = tokio::sync::Mutex::new(self.database().await?);
        eventually("no statement waits", WITHIN, async || {
            let waiting: i64 = sqlx::query_scalar(
                "select count(pg_terminate_backend(pid)) from pg_stat_activity
                 where usename = current_user and pid <> pg_backend_pid() and wait_event_type = 'Lock'
                     and wait_event <> 'advisory'",
            )
            .fetch_one(&mut *database.lock().await)
            .await?;
            Ok((waiting == 0).then_some(()))
        })
        .await
    }

    /// How often the first agent has met a command it had done.
    async fn repeated_commands(&self) -> Result<usize> {
        let log = tokio::fs::read_to_string(self.stack.agents()[0].part().log()).await?;
        Ok(log.matches("a command came again and is not repeated").count())
    }

    /// Nothing comes back from the connection what is reported is written on, as when the database's host vanished: the
    /// reader gives it up and goes on with another.
    pub(crate) async fn a_database_that_no_longer_answers(&self) -> Result<()> {
        let api = self.api("frozen", QUICK).await?;
        api.reported(&self.pump, "indoor_target_c", 28).await?;
        let mut database = self.database().await?;
        // In a transaction it would keep its rows locked, which is another story.
        let idle: Vec<i32> = sqlx::query_scalar(
            "select pid from pg_stat_activity where application_name = 'homelab-settings-api' and state = 'idle'",
        )
        .fetch_all(&mut database)
        .await?;
        let servers: Vec<Pid> = idle.into_iter().filter_map(Pid::from_raw).collect();
        ensure!(!servers.is_empty());
        for &server in &servers {
            kill_process(server, Signal::STOP)?;
        }
        let frozen_at = Utc::now();
        let database = tokio::sync::Mutex::new(database);
        let written = eventually("reports are written again", WITHIN * 2, async || {
            let written: bool = sqlx::query_scalar("select max(reported_at) > $1 from settings")
                .bind(frozen_at)
                .fetch_one(&mut *database.lock().await)
                .await?;
            Ok(written.then_some(()))
        })
        .await;
        for &server in &servers {
            kill_process(server, Signal::CONT)?;
        }
        written?;
        api.part.stop().await;
        Ok(())
    }

    /// The agent has written down that it does an attempt, and dies before it does: the attempt is lost and never doubled, and
    /// the next one follows.
    pub(crate) async fn an_agent_that_dies_between_recording_and_publishing(&self) -> Result<()> {
        let api = self.api("dies", QUICK).await?;
        let agent = &self.stack.agents()[0];
        api.reported(&self.pump, "indoor_target_c", 27).await?;
        let before = Heard::on(WRITE, agent.mqtt(), "writes-before").await?;
        std::fs::write(&self.die_file, "")?;
        let repeats = self.repeated_commands().await?;
        let id = api.want(&self.pump, json!({"indoor_target_c": 28})).await?;
        let code = timeout(WITHIN, agent.part().wait())
            .await
            .context("the agent did not die")??;
        ensure!(
            code == 128 + 9 && !self.die_file.exists(),
            "it ended with {code}; release builds do not die for tests"
        );
        ensure!(before.of("d50", 28) == 0, "it died before it published");

        agent.part().restart().await?;
        agent.ready().await?;
        let after = Heard::on(WRITE, agent.mqtt(), "writes-after").await?;
        api.ends(id, "confirmed", 2)
            .await
            .context("killed between recording and publishing")?;
        ensure!(
            after.of("d50", 28) == 1,
            "only the second attempt reached the pump"
        );
        ensure!(
            self.repeated_commands().await? > repeats,
            "the first attempt was read again and not done"
        );
        api.part.stop().await;
        Ok(())
    }
}
