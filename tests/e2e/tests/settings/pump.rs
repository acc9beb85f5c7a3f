//! A heat pump of every behaviour, and devices that say what we want to hear.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::{TimeDelta, Utc};
use devices::Behaviour;
use e2e::WITHIN;
use serde_json::json;
use stack::mqtt::Publisher;
use stack::part::eventually;

use crate::api::{Api, is_finished, statuses};
use crate::devices::{Heard, Simulated, WRITE};
use crate::{QUICK, SHORT_LIVED, Told};

/// Where heat pumps report.
const DATA: &str = "thermiq_heatpump/data";

impl Told {
    /// Confirmed, ignored, late, another value, two quick changes.
    pub(crate) async fn a_pump_that_is_there(&self, api: &Api, simulated: &Simulated) -> Result<()> {
        let pump = self.pump.as_str();
        api.reported(pump, "indoor_target_c", 21).await?;
        let writes = Heard::on(WRITE, self.stack.mqtt(), "writes-there").await?;

        let id = api
            .want(pump, json!({"indoor_target_c": 22, "curve": 41}))
            .await?;
        let command = api.ends(id, "confirmed", 1).await.context("confirmed")?;
        ensure!(
            statuses(&command) == ["pending", "published", "confirmed"],
            "{command}"
        );
        ensure!((writes.of("d50", 22), writes.of("d52", 41)) == (1, 1));
        let settings = api.reported(pump, "indoor_target_c", 22).await?;
        ensure!(settings["wanted"] == json!({}), "{settings}");
        self.announced(id, &["pending", "published", "confirmed"]).await?;

        simulated.pump.send_replace(Behaviour::Ignores);
        let id = api.want(pump, json!({"indoor_target_c": 16})).await?;
        let command = api.ends(id, "failed", 3).await.context("ignored")?;
        ensure!(writes.of("d50", 16) == 3, "{command}");
        api.reported(pump, "indoor_target_c", 22).await?;

        simulated
            .pump
            .send_replace(Behaviour::Late(Duration::from_secs(4)));
        let id = api.want(pump, json!({"indoor_target_c": 17})).await?;
        let command = api.until(id, "late", is_finished).await?;
        ensure!(command["status"] == "confirmed", "{command}");
        ensure!((1..=3).contains(&writes.of("d50", 17)));

        simulated.pump.send_replace(Behaviour::Other);
        let id = api.want(pump, json!({"indoor_target_c": 18})).await?;
        api.ends(id, "failed", 3).await.context("another value")?;
        ensure!(writes.of("d50", 18) == 3);
        api.reported(pump, "indoor_target_c", 19).await?;

        simulated.pump.send_replace(Behaviour::Applies);
        let first = api.want(pump, json!({"indoor_target_c": 23})).await?;
        let second = api.want(pump, json!({"indoor_target_c": 24})).await?;
        api.ends(second, "confirmed", 1)
            .await
            .context("two quick changes")?;
        let first = api.until(first, "the first", is_finished).await?;
        // Unless the first was sent and done before the second was asked for.
        ensure!(
            first["status"] == "superseded" || first["status"] == "confirmed",
            "{first}"
        );
        ensure!(writes.of("d50", 23) <= 1 && writes.of("d50", 24) == 1);
        api.reported(pump, "indoor_target_c", 24).await?;
        Ok(())
    }

    /// Offline and back within its time, offline beyond it.
    pub(crate) async fn a_pump_that_goes_away(&self, simulated: &Simulated) -> Result<()> {
        let api = self.api("away", QUICK).await?;
        simulated.pump.send_replace(Behaviour::Offline);
        let id = self.until_nobody_listens(&api, 15).await?;
        api.until(id, "waits", |command| {
            command["reason"] == "the device was not connected"
        })
        .await?;
        simulated.pump.send_replace(Behaviour::Applies);
        let command = api.until(id, "back", is_finished).await?;
        ensure!(
            command["status"] == "confirmed" && command["attempts"].as_i64() <= Some(3),
            "{command}"
        );
        api.reported(&self.pump, "indoor_target_c", 15).await?;
        api.part.stop().await;

        let api = self.api("gone", SHORT_LIVED).await?;
        simulated.pump.send_replace(Behaviour::Offline);
        let id = self.until_nobody_listens(&api, 30).await?;
        let command = api
            .ends(id, "expired", 1)
            .await
            .context("offline beyond its time")?;
        ensure!(command["published_at"].is_null(), "{command}");
        let writes = Heard::on(WRITE, self.stack.mqtt(), "writes-gone").await?;
        simulated.pump.send_replace(Behaviour::Applies);
        // A later command proves that nothing came before it.
        let later = api.want(&self.pump, json!({"curve": 44})).await?;
        api.until(later, "a later one", |command| command["status"] != "pending")
            .await?;
        eventually("the later write", WITHIN, async || {
            Ok((writes.of("d52", 44) > 0).then_some(()))
        })
        .await?;
        ensure!(writes.of("d50", 30) == 0, "an expired command is never done");
        api.part.stop().await;
        Ok(())
    }

    /// A wish that is met with no subscriber: the pump takes a moment to disconnect, and until then it may obey.
    pub(crate) async fn until_nobody_listens(&self, api: &Api, value: i64) -> Result<i64> {
        eventually("nobody listens", WITHIN, async || {
            let probe = api.want(&self.pump, json!({"mode": 2})).await?;
            let probed = api.until(probe, "a probe", |command| {
                command["finished_at"].is_string() || command["reason"].is_string()
            });
            Ok((probed.await?["reason"] == "the device was not connected").then_some(()))
        })
        .await?;
        api.want(&self.pump, json!({"indoor_target_c": value, "mode": 1}))
            .await
    }

    /// A device with no subscriber, a record from before the command, the panel that changes the value back.
    pub(crate) async fn devices_that_say_what_we_want(&self) -> Result<()> {
        let api = self.api("say", QUICK).await?;
        let agent = self.stack.agents()[1].mqtt();
        let mut device = Publisher::connect(agent, "story-pump").await?;
        let mut says = async |value: i64| {
            let data = json!({"Client_Name": "story-pump", "d0": 1, "d50": value}).to_string();
            device.publish(DATA, data).await?;
            api.reported("story-pump", "indoor_target_c", value)
                .await
                .map(drop)
        };
        says(20).await?;
        let id = api.want("story-pump", json!({"indoor_target_c": 25})).await?;
        for attempt in 1..3 {
            api.until(id, "no subscriber", |command| {
                command["attempts"] == attempt && command["reason"] == "the device was not connected"
            })
            .await?;
            says(20 - attempt).await?;
        }
        let command = api.ends(id, "failed", 3).await.context("no subscriber")?;
        ensure!(command["reason"] == "the device was not connected", "{command}");

        let writes = Heard::on(WRITE, agent, "writes-say").await?;
        let before = Utc::now();
        let id = api.want("story-pump", json!({"indoor_target_c": 25})).await?;
        api.until(id, "published", |command| command["published_at"].is_string())
            .await?;
        self.record("story-pump", before - TimeDelta::seconds(1), 25)?;
        // A record that is read after it, and says something else.
        says(21).await?;
        let command = api.command(id).await?;
        ensure!(
            command["status"] == "published",
            "an old record confirms nothing: {command}"
        );
        says(25).await?;
        let command = api.until(id, "confirmed", is_finished).await?;
        ensure!(command["status"] == "confirmed", "{command}");
        ensure!((1..=3).contains(&writes.of("d50", 25)));
        says(19).await?;
        let command = api.command(id).await?;
        ensure!(
            command["status"] == "confirmed",
            "the panel does not undo it: {command}"
        );
        let settings = api.get("/api/v1/heatpump/settings/story-pump").await?;
        ensure!(
            settings["wanted"] == json!({}),
            "nor is it wanted again: {settings}"
        );
        api.part.stop().await;
        Ok(())
    }

    /// A record as an agent would forward it.
    fn record(&self, device: &str, time: chrono::DateTime<Utc>, indoor_target_c: i64) -> Result<()> {
        let record = json!({"id": format!("p1/story/{}", time.timestamp_micros()), "agent": "p1", "device_id": device,
            "time": time, "clock": "synced", "kind": "heatpump",
            "reading": {"settings": {"indoor_target_c": indoor_target_c}}});
        let records = [(telemetry::topic::HEATPUMP, device.to_owned(), record.to_string())];
        self.stack.kafka().produce(records.into_iter()).map(drop)
    }
}
