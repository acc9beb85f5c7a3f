//! Tasmota and Shelly plugs of every behaviour, plugs of several channels, and a schedule.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use devices::{Behaviour, Inventory};
use e2e::WITHIN;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use stack::mqtt::Publisher;
use stack::part::eventually;

use crate::Told;
use crate::api::{Api, is_finished};
use crate::devices::{Heard, Simulated};

/// A plug, and what is sent to it.
struct Plug {
    id: String,
    heard: Heard,
}

impl Plug {
    /// How often it was told so: in Tasmota's words or in Shelly's.
    fn told(&self, on: bool) -> usize {
        self.heard.count(|text| match text {
            "ON" => on,
            "OFF" => !on,
            rpc => serde_json::from_str::<Value>(rpc).is_ok_and(|rpc| rpc["params"]["on"] == on),
        })
    }
}

impl Told {
    /// Confirmed, ignored, late, the opposite, two quick changes, offline and back within its time.
    pub(crate) async fn plugs_of_every_behaviour(&self, api: &Api, simulated: &Simulated) -> Result<()> {
        let inventory = Inventory::of(&self.house);
        let topics = [
            (
                inventory.tasmota.clone(),
                format!("cmnd/{}/POWER", inventory.tasmota),
            ),
            (
                inventory.shelly_plug.clone(),
                format!("{}/rpc", inventory.shelly_plug),
            ),
        ];
        let plugs = try_join_all(topics.map(async |(id, topic)| {
            ensure!(api.plug(&id).await?["on"] == true, "plugs are on at first");
            let heard = Heard::on(&topic, self.stack.mqtt(), &format!("heard-{id}")).await?;
            Ok(Plug { id, heard })
        }))
        .await?;
        let each = async |on: bool, status: &str, attempts: i64| {
            let switched = plugs.iter().map(async |plug| {
                let id = api.switch(&plug.id, on).await?;
                api.plug_ends((&plug.id, id), status, attempts).await
            });
            try_join_all(switched).await
        };

        each(false, "confirmed", 1).await?;
        for plug in &plugs {
            ensure!(plug.told(false) == 1);
            let shown = api.plug(&plug.id).await?;
            ensure!(shown["on"] == false && shown["wanted_on"].is_null(), "{shown}");
        }

        simulated.plugs.send_replace(Behaviour::Ignores);
        each(true, "failed", 3).await.context("ignored")?;
        for plug in &plugs {
            ensure!(plug.told(true) == 3);
            ensure!(api.plug(&plug.id).await?["on"] == false);
        }

        simulated
            .plugs
            .send_replace(Behaviour::Late(Duration::from_secs(4)));
        for plug in &plugs {
            let id = api.switch(&plug.id, true).await?;
            let command = api.plug_until((&plug.id, id), "late", is_finished).await?;
            ensure!(command["status"] == "confirmed", "{command}");
            ensure!((4..=6).contains(&plug.told(true)), "at most once an attempt");
        }

        simulated.plugs.send_replace(Behaviour::Other);
        // It is on and told to go off: it stays on and says so.
        each(false, "failed", 3).await.context("the opposite")?;
        for plug in &plugs {
            ensure!(plug.told(false) == 4);
            ensure!(api.plug(&plug.id).await?["on"] == true);
        }

        simulated.plugs.send_replace(Behaviour::Applies);
        for plug in &plugs {
            let (off, on) = (plug.told(false), plug.told(true));
            let first = api.switch(&plug.id, true).await?;
            let second = api.switch(&plug.id, false).await?;
            api.plug_ends((&plug.id, second), "confirmed", 1)
                .await
                .context("two quick changes")?;
            let first = api
                .plug_until((&plug.id, first), "the first", is_finished)
                .await?;
            // A device that is quicker than the second change has done the first.
            ensure!(
                first["status"] == "superseded" || first["status"] == "confirmed",
                "{first}"
            );
            ensure!(plug.told(false) == off + 1 && plug.told(true) <= on + 1);
            ensure!(api.plug(&plug.id).await?["on"] == false, "the later one holds");
        }

        // Nobody else may listen now.
        let ids: Vec<String> = plugs.into_iter().map(|plug| plug.id).collect();
        simulated.plugs.send_replace(Behaviour::Offline);
        let waiting = try_join_all(ids.iter().map(async |id| {
            eventually("nobody listens", WITHIN, async || {
                let command = api.switch(id, true).await?;
                let command = api.plug_until((id, command), "an answer", |command| {
                    is_finished(command) || command["reason"].is_string()
                });
                let command = command.await?;
                let away = command["reason"] == "the device was not connected";
                Ok(away.then(|| command["id"].as_i64()).flatten())
            })
            .await
        }))
        .await?;
        simulated.plugs.send_replace(Behaviour::Applies);
        for (id, command) in ids.iter().zip(waiting) {
            let command = api.plug_until((id, command), "back", is_finished).await?;
            ensure!(
                command["status"] == "confirmed" && command["attempts"].as_i64() <= Some(3),
                "{command}"
            );
            ensure!(api.plug(id).await?["on"] == true);
        }
        Ok(())
    }

    /// The second relay of a Tasmota and of a Shelly: `<id>:1`, switched without its neighbour.
    pub(crate) async fn plugs_of_several_channels(&self, api: &Api) -> Result<()> {
        let agent = self.stack.mqtt();
        let mut device = Publisher::connect(agent, "story-channels").await?;
        let relays = |first: bool, second: bool| {
            let word = |on| if on { "ON" } else { "OFF" };
            let tasmota = json!({"POWER1": word(first), "POWER2": word(second)});
            let shelly = json!({"src": "shellypro2-0a1b2c", "method": "NotifyStatus", "params": {
                "ts": chrono::Utc::now().timestamp_micros() as f64 / 1e6,
                "switch:0": {"id": 0, "output": first}, "switch:1": {"id": 1, "output": second}}});
            [
                ("tele/story-strip/STATE", tasmota.to_string()),
                ("shellypro2-0a1b2c/events/rpc", shelly.to_string()),
            ]
        };
        for (topic, payload) in relays(true, false) {
            device.publish(topic, payload).await?;
        }
        let strip = Heard::on("cmnd/story-strip/+", agent, "heard-strip").await?;
        let strip_second = Heard::on("cmnd/story-strip/POWER2", agent, "heard-strip-2").await?;
        let shelly = Heard::on("shellypro2-0a1b2c/rpc", agent, "heard-pro2").await?;
        let mut commands = Vec::new();
        for plug in ["story-strip:1", "shellypro2-0a1b2c:1"] {
            ensure!(api.plug(plug).await?["on"] == false);
            let id = api.switch(plug, true).await?;
            api.plug_until((plug, id), "published", |command| {
                command["published_at"].is_string()
            })
            .await?;
            commands.push((plug, id));
        }
        for (topic, payload) in relays(true, true) {
            device.publish(topic, payload).await?;
        }
        for (plug, id) in commands {
            let command = api.plug_until((plug, id), "confirmed", is_finished).await?;
            ensure!(command["status"] == "confirmed", "{command}");
            let other = plug.trim_end_matches(":1");
            let others = api.get(&format!("/api/v1/plugs/{other}/outbox")).await?;
            ensure!(
                others["items"] == json!([]),
                "its neighbour was told nothing: {others}"
            );
        }
        let told = strip_second.count(|text| text == "ON");
        ensure!((1..=3).contains(&told) && strip.count(|_| true) == told);
        let set = |id: u32| {
            move |text: &str| {
                serde_json::from_str::<Value>(text)
                    .is_ok_and(|rpc| rpc["params"] == json!({"id": id, "on": true}))
            }
        };
        ensure!((1..=3).contains(&shelly.count(set(1))) && shelly.count(set(0)) == 0);
        Ok(())
    }

    /// A schedule that became due a minute ago switches the plug, once.
    pub(crate) async fn a_schedule_that_is_due(&self, api: &Api) -> Result<()> {
        let plug = Inventory::of(&self.house).tasmota;
        let heard = Heard::on(&format!("cmnd/{plug}/POWER"), self.stack.mqtt(), "heard-schedule").await?;
        let schedule: i64 = sqlx::query_scalar(
            "insert into power_plug_schedules (plug_id, weekdays, local_time, turn_on, created_by, effective_from)
             select $1, '{1,2,3,4,5,6,7}', ((now() - interval '1 minute') at time zone time_zone)::time, false, 'story',
                 now() - interval '1 day'
             from household returning id",
        )
        .bind(&plug)
        .fetch_one(&mut self.database().await?)
        .await?;
        let by = format!("schedule:{schedule}");
        let command = eventually("the schedule's command is confirmed", WITHIN, async || {
            let commands = api.get(&format!("/api/v1/plugs/{plug}/outbox")).await?;
            let items = commands["items"].as_array().context("items")?;
            let mut own = items.iter().filter(|command| command["requested_by"] == by);
            let command = own.next().filter(|command| is_finished(command)).cloned();
            ensure!(own.next().is_none(), "a run is made once: {commands}");
            Ok(command)
        })
        .await?;
        ensure!(
            command["status"] == "confirmed" && command["attempts"] == 1,
            "{command}"
        );
        ensure!(heard.count(|text| text == "OFF") == 1);
        ensure!(api.plug(&plug).await?["on"] == false);
        Ok(())
    }
}
