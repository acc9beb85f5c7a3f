//! Command stories: from PATCH through PostgreSQL, Kafka, edge-agent and MQTT to a simulated device, and back by its telemetry.
//! Each ends in the documented state, and the device gets the value at most as often as documented.
//!
//! The stories share one heat pump and are told one after the other, each with values of its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::{TimeDelta, Utc};
use devices::{House, Inventory, Pace, PumpBehaviour};
use e2e::WITHIN;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use stack::issuer::{ALL_SCOPES, AUDIENCE};
use stack::mqtt::Publisher;
use stack::part::{Part, eventually};
use stack::{Options, Service, Stack, port};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const WRITE: &str = "thermiq_heatpump/write";
const DATA: &str = "thermiq_heatpump/data";
/// The relay's lock (cluster/homelab-settings-api/src/relay.rs).
const LOCK: i64 = 0x6b31_326e_6f75_7462;

/// A settings API of the stories, with times that a test can wait for.
struct Api {
    part: Part,
    url: String,
    admin: SocketAddr,
    client: reqwest::Client,
    token: String,
}

impl Api {
    async fn start(stack: &Stack, name: &str, group: &str, times: [(&str, &str); 2]) -> Result<Api> {
        let (public, admin) = (port::free()?, port::free()?);
        let issuer = stack.test_issuer()?;
        let mut command =
            tokio::process::Command::new(stack::binaries::folder().await?.join("homelab-settings-api"));
        command
            .env("LOG_FORMAT", "pretty")
            .env("LISTEN_ADDRESS", public.to_string())
            .env("METRICS_ADDRESS", admin.to_string())
            .env("OIDC_ISSUERS", issuer.url())
            .env("OIDC_AUDIENCES", AUDIENCE)
            .env("DATABASE_URL", stack.database_url("settings", "homelab_settings"))
            .env("KAFKA_BOOTSTRAP", stack.kafka().bootstrap())
            .env("KAFKA_GROUP", format!("{group}-{}", stack.run().id()))
            .envs(times);
        let api = Api {
            part: Part::start(name, command).await?,
            url: format!("http://{public}"),
            admin,
            client: stack::http::client()?,
            token: issuer.good(ALL_SCOPES),
        };
        api.part.ready_http(WITHIN, admin, "/readyz").await?;
        Ok(api)
    }

    async fn get(&self, path: &str) -> Result<Value> {
        e2e::get(&format!("{}{path}", self.url), &self.token).await
    }

    /// Wants something of a device; the command's id.
    async fn patch(&self, path: &str, body: Value) -> Result<i64> {
        let request = self.client.patch(format!("{}{path}", self.url));
        let answer = request.bearer_auth(&self.token).json(&body).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status == 202, "PATCH {path} {body}: {status}: {text}");
        let accepted: Value = serde_json::from_str(&text)?;
        accepted["outbox_id"].as_i64().context("no outbox_id")
    }

    async fn want(&self, device: &str, body: Value) -> Result<i64> {
        self.patch(&format!("/api/v1/heatpump/settings/{device}"), body)
            .await
    }

    async fn command(&self, id: i64) -> Result<Value> {
        self.get(&format!("/api/v1/heatpump/settings/outbox/{id}")).await
    }

    /// The command once `condition` takes it.
    async fn until(&self, id: i64, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        let last = Mutex::new(Value::Null);
        let found = eventually(what, WITHIN * 2, async || {
            let command = self.command(id).await?;
            *last.lock().expect("no test panics while it holds this") = command.clone();
            Ok(condition(&command).then_some(command))
        });
        found.await.with_context(|| format!("command {id}: {last:?}"))
    }

    /// The command at its end, which must be `status` with so many attempts.
    async fn ends(&self, id: i64, status: &str, attempts: i64) -> Result<Value> {
        let command = self
            .until(id, "the end", |command| command["finished_at"].is_string())
            .await?;
        ensure!(
            command["status"] == status && command["attempts"] == attempts,
            "{status} after {attempts} attempts was expected of {command}"
        );
        Ok(command)
    }

    async fn reported(&self, device: &str, field: &str, value: i64) -> Result<Value> {
        eventually("the reported value", WITHIN, async || {
            let settings = self.get(&format!("/api/v1/heatpump/settings/{device}")).await?;
            Ok((settings["reported"][field] == value).then_some(settings))
        })
        .await
    }
}

/// A simulated house at an agent.
struct Simulated {
    pump: watch::Sender<PumpBehaviour>,
    task: JoinHandle<Result<()>>,
}

impl Simulated {
    fn at(agent: SocketAddr, house: &Arc<House>, behaviour: PumpBehaviour) -> Simulated {
        let (pump, receiver) = watch::channel(behaviour);
        let quick = Duration::from_millis(300);
        let options = devices::Options {
            pace: Pace {
                pump: quick,
                plug: quick,
                ..Pace::REAL
            },
            pump: receiver,
            ..devices::Options::new(agent.to_string(), house.clone())
        };
        let task = tokio::spawn(devices::run(options, Default::default()));
        Simulated { pump, task }
    }

    fn is(&self, behaviour: PumpBehaviour) {
        self.pump.send_replace(behaviour);
    }
}

/// Everything that is written to heat pumps at one agent, until it is dropped.
struct Writes {
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Writes {
    async fn at(agent: SocketAddr, client_id: &str) -> Result<Writes> {
        let mut options = MqttOptions::new(client_id, agent.ip().to_string(), agent.port());
        options.set_keep_alive(Duration::from_secs(30));
        let (client, mut events) = AsyncClient::new(options, 16);
        client.subscribe(WRITE, QoS::AtLeastOnce).await?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (all, (subscribed, wait)) = (seen.clone(), tokio::sync::oneshot::channel());
        let task = tokio::spawn(async move {
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
                    Event::Incoming(Packet::Publish(message)) => all
                        .lock()
                        .expect("no test panics while it holds this")
                        .push(String::from_utf8_lossy(&message.payload).into_owned()),
                    _ => {}
                }
            }
        });
        wait.await?;
        Ok(Writes { seen, task })
    }

    fn of(&self, register: &str, value: i64) -> usize {
        let wanted = format!("{{\"{register}\":{value}}}");
        let seen = self.seen.lock().expect("no test panics while it holds this");
        seen.iter().filter(|write| **write == wanted).count()
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the stories share.
struct Told {
    stack: Stack,
    house: Arc<House>,
    pump: String,
}

const QUICK: [(&str, &str); 2] = [("COMMAND_WAIT_SECONDS", "3"), ("COMMAND_EXPIRY_SECONDS", "90")];
const SHORT_LIVED: [(&str, &str); 2] = [("COMMAND_WAIT_SECONDS", "2"), ("COMMAND_EXPIRY_SECONDS", "5")];

#[test]
fn command_stories() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let options = Options {
            agents: 2,
            test_issuer: true,
            ..Options::default()
        };
        let stack = Stack::start(options).await?;
        // The stories have settings APIs of their own, and only one sends commands.
        stack.service(Service::SettingsApi).part().stop().await;
        let house = Arc::new(House::new(5));
        let pump = Inventory::of(&house).pump;
        let told = Told { stack, house, pump };
        let simulated = Simulated::at(told.stack.mqtt(), &told.house, PumpBehaviour::Applies);
        told.with_a_pump_that_is_there(&simulated).await?;
        told.with_a_pump_that_goes_away(&simulated).await?;
        told.with_devices_that_say_what_we_want().await?;
        told.with_parts_that_are_killed().await?;
        told.with_two_relays().await?;
        told.with_plugs().await?;
        simulated.task.abort();
        told.with_two_agents().await?;
        told.stack.stop().await;
        Ok(())
    })
}

fn statuses(command: &Value) -> Vec<&str> {
    let history = command["history"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut statuses: Vec<&str> = history
        .iter()
        .filter_map(|change| change["status"].as_str())
        .collect();
    statuses.dedup();
    statuses
}

impl Told {
    async fn database(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.stack.database_url("settings", "homelab_settings")).await?)
    }

    /// Confirmed, ignored, late, another value, two quick changes.
    async fn with_a_pump_that_is_there(&self, simulated: &Simulated) -> Result<()> {
        let api = Api::start(&self.stack, "settings-there", "there", QUICK).await?;
        let pump = self.pump.as_str();
        api.reported(pump, "indoor_target_c", 21).await?;
        let writes = Writes::at(self.stack.mqtt(), "writes-there").await?;

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

        simulated.is(PumpBehaviour::Ignores);
        let id = api.want(pump, json!({"indoor_target_c": 16})).await?;
        let command = api.ends(id, "failed", 3).await.context("ignored")?;
        ensure!(writes.of("d50", 16) == 3, "{command}");
        api.reported(pump, "indoor_target_c", 22).await?;

        simulated.is(PumpBehaviour::Late(Duration::from_secs(4)));
        let id = api.want(pump, json!({"indoor_target_c": 17})).await?;
        let command = api
            .until(id, "late", |command| command["finished_at"].is_string())
            .await?;
        ensure!(command["status"] == "confirmed", "{command}");
        ensure!((1..=3).contains(&writes.of("d50", 17)));

        simulated.is(PumpBehaviour::Other);
        let id = api.want(pump, json!({"indoor_target_c": 18})).await?;
        api.ends(id, "failed", 3).await.context("another value")?;
        ensure!(writes.of("d50", 18) == 3);
        api.reported(pump, "indoor_target_c", 19).await?;

        simulated.is(PumpBehaviour::Applies);
        let first = api.want(pump, json!({"indoor_target_c": 23})).await?;
        let second = api.want(pump, json!({"indoor_target_c": 24})).await?;
        api.ends(second, "confirmed", 1)
            .await
            .context("two quick changes")?;
        let first = api
            .until(first, "the first", |command| command["finished_at"].is_string())
            .await?;
        ensure!(first["status"] == "superseded", "{first}");
        ensure!(writes.of("d50", 23) <= 1 && writes.of("d50", 24) == 1);
        api.reported(pump, "indoor_target_c", 24).await?;
        api.part.stop().await;
        Ok(())
    }

    /// Offline and back within its time, offline beyond it.
    async fn with_a_pump_that_goes_away(&self, simulated: &Simulated) -> Result<()> {
        let api = Api::start(&self.stack, "settings-away", "away", QUICK).await?;
        simulated.is(PumpBehaviour::Offline);
        let id = self.until_nobody_listens(&api, 15).await?;
        api.until(id, "waits", |command| {
            command["reason"] == "the device was not connected"
        })
        .await?;
        simulated.is(PumpBehaviour::Applies);
        let command = api
            .until(id, "back", |command| command["finished_at"].is_string())
            .await?;
        ensure!(
            command["status"] == "confirmed" && command["attempts"].as_i64() <= Some(3),
            "{command}"
        );
        api.reported(&self.pump, "indoor_target_c", 15).await?;
        api.part.stop().await;

        let api = Api::start(&self.stack, "settings-gone", "gone", SHORT_LIVED).await?;
        simulated.is(PumpBehaviour::Offline);
        let id = self.until_nobody_listens(&api, 30).await?;
        let command = api
            .ends(id, "expired", 1)
            .await
            .context("offline beyond its time")?;
        ensure!(command["published_at"].is_null(), "{command}");
        let writes = Writes::at(self.stack.mqtt(), "writes-gone").await?;
        simulated.is(PumpBehaviour::Applies);
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
    async fn until_nobody_listens(&self, api: &Api, value: i64) -> Result<i64> {
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
    async fn with_devices_that_say_what_we_want(&self) -> Result<()> {
        let api = Api::start(&self.stack, "settings-say", "say", QUICK).await?;
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

        let writes = Writes::at(agent, "writes-say").await?;
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
        let command = api
            .until(id, "confirmed", |command| command["finished_at"].is_string())
            .await?;
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

    /// Killed between commit and publish, between publish and mark; an agent that recorded an attempt and died.
    async fn with_parts_that_are_killed(&self) -> Result<()> {
        let writes = Writes::at(self.stack.mqtt(), "writes-killed").await?;
        let pump = self.pump.as_str();
        let mut lock = self.database().await?;
        sqlx::query("select pg_advisory_lock($1)")
            .bind(LOCK)
            .execute(&mut lock)
            .await?;
        let api = Api::start(&self.stack, "settings-killed-1", "killed-1", QUICK).await?;
        api.reported(pump, "curve", 44).await?;
        let id = api.want(pump, json!({"indoor_target_c": 26})).await?;
        api.part.kill().await;
        ensure!(writes.of("d50", 26) == 0);
        let api = Api::start(&self.stack, "settings-killed-2", "killed-2", QUICK).await?;
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
        let api = Api::start(&self.stack, "settings-killed-3", "killed-3", QUICK).await?;
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
        held.rollback().await?;
        let api = Api::start(&self.stack, "settings-killed-4", "killed-4", QUICK).await?;
        api.ends(id, "confirmed", 1)
            .await
            .context("killed between publish and mark")?;
        ensure!(writes.of("d50", 27) == 1, "sent twice, done once");

        // What an agent leaves behind that dies between recording an attempt and publishing it: it knows the attempt and
        // will not do it. It learns of it here by a command that changes nothing.
        let next: i64 = sqlx::query("select last_value + 1 as next from outbox_id_seq")
            .fetch_one(&mut row)
            .await?
            .try_get("next")?;
        let known = json!({"id": next, "attempt": 1, "agent": "p0", "device_id": pump, "issued_at": Utc::now(),
            "expires_at": Utc::now() + TimeDelta::minutes(5), "kind": "heatpump_settings", "settings": {"heat_stop_c": 17}});
        self.stack
            .kafka()
            .produce([(telemetry::topic::COMMANDS, pump.to_owned(), known.to_string())].into_iter())?;
        eventually("the agent knows it", WITHIN, async || {
            Ok((writes.of("d58", 17) > 0).then_some(()))
        })
        .await?;
        let id = api.want(pump, json!({"indoor_target_c": 28})).await?;
        ensure!(id == next);
        api.ends(id, "confirmed", 2)
            .await
            .context("killed between recording and publishing")?;
        ensure!(writes.of("d50", 28) == 1);
        api.part.stop().await;
        Ok(())
    }

    /// Two relays, of which one is killed. What is old enough goes when a relay begins.
    async fn with_two_relays(&self) -> Result<()> {
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
        let writes = Writes::at(self.stack.mqtt(), "writes-two").await?;
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
            let (first, second) = (is_active(&one).await?, is_active(&two).await?);
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

    /// A Tasmota and a Shelly plug.
    async fn with_plugs(&self) -> Result<()> {
        let api = Api::start(&self.stack, "settings-plugs", "plugs", QUICK).await?;
        let inventory = Inventory::of(&self.house);
        for plug in [inventory.tasmota, inventory.shelly_plug] {
            for on in [false, true] {
                let path = format!("/api/v1/plugs/{plug}");
                eventually("the plug is known", WITHIN, async || {
                    Ok(api.get(&path).await.ok())
                })
                .await?;
                let id = api.patch(&path, json!({"on": on})).await?;
                let command = eventually("switched", WITHIN, async || {
                    let command = api.get(&format!("{path}/outbox/{id}")).await?;
                    Ok(command["finished_at"].is_string().then_some(command))
                })
                .await?;
                ensure!(
                    command["status"] == "confirmed" && command["attempts"] == 1,
                    "{command}"
                );
                ensure!(api.get(&path).await?["on"] == on);
            }
        }
        api.part.stop().await;
        Ok(())
    }

    /// A device that moves from one agent to the other while a command waits for it.
    async fn with_two_agents(&self) -> Result<()> {
        let api = Api::start(&self.stack, "settings-agents", "agents", QUICK).await?;
        api.reported(&self.pump, "curve_plus_5", 6).await?;
        let id = self.until_nobody_listens(&api, 29).await?;
        let command = api
            .until(id, "waits", |command| {
                command["reason"] == "the device was not connected"
            })
            .await?;
        ensure!(command["agent"] == "p0", "{command}");
        let writes = Writes::at(self.stack.agents()[1].mqtt(), "writes-agents").await?;
        let simulated = Simulated::at(self.stack.agents()[1].mqtt(), &self.house, PumpBehaviour::Applies);
        let command = api.ends(id, "confirmed", 2).await.context("two agents")?;
        ensure!(command["agent"] == "p1", "{command}");
        ensure!(writes.of("d50", 29) == 1);
        simulated.task.abort();
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

async fn is_active(api: &Api) -> Result<bool> {
    let text = api
        .client
        .get(format!("http://{}/metrics", api.admin))
        .send()
        .await?
        .text()
        .await?;
    Ok(text
        .lines()
        .any(|line| line == "homelab_settings_api_relay_active 1"))
}
