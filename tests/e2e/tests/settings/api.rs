//! A settings API of the stories, and what they ask of it.

use std::net::SocketAddr;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use e2e::WITHIN;
use serde_json::Value;
use stack::issuer::{ALL_SCOPES, AUDIENCE};
use stack::part::{Part, eventually};
use stack::{Stack, port};

/// A settings API, with times that a test can wait for.
pub(crate) struct Api {
    pub(crate) part: Part,
    url: String,
    admin: SocketAddr,
    client: reqwest::Client,
    token: String,
}

impl Api {
    pub(crate) async fn start(stack: &Stack, name: &str, group: &str, times: &[(&str, &str)]) -> Result<Api> {
        let api = Self::begin(stack, name, group, times).await?;
        api.ready().await?;
        Ok(api)
    }

    pub(crate) async fn ready(&self) -> Result<()> {
        self.part.ready_http(WITHIN, self.admin, "/readyz").await
    }

    /// Starts it where it cannot be ready yet.
    pub(crate) async fn begin(stack: &Stack, name: &str, group: &str, times: &[(&str, &str)]) -> Result<Api> {
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
            .envs(times.iter().copied());
        Ok(Api {
            part: Part::start(name, command).await?,
            url: format!("http://{public}"),
            admin,
            client: stack::http::client()?,
            token: issuer.good(ALL_SCOPES),
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        e2e::get(&format!("{}{path}", self.url), &self.token).await
    }

    /// Wants something of a device; the command's id.
    pub(crate) async fn patch(&self, path: &str, body: Value) -> Result<i64> {
        let request = self.client.patch(format!("{}{path}", self.url));
        let answer = request.bearer_auth(&self.token).json(&body).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status == 202, "PATCH {path} {body}: {status}: {text}");
        let accepted: Value = serde_json::from_str(&text)?;
        accepted["outbox_id"].as_i64().context("no outbox_id")
    }

    pub(crate) async fn want(&self, device: &str, body: Value) -> Result<i64> {
        self.patch(&format!("/api/v1/heatpump/settings/{device}"), body)
            .await
    }

    pub(crate) async fn command(&self, id: i64) -> Result<Value> {
        self.get(&format!("/api/v1/heatpump/settings/outbox/{id}")).await
    }

    /// Wants a plug on or off; the command's id.
    pub(crate) async fn switch(&self, plug: &str, on: bool) -> Result<i64> {
        self.patch(&format!("/api/v1/plugs/{plug}"), serde_json::json!({"on": on}))
            .await
    }

    /// The command once `condition` takes it.
    pub(crate) async fn until(
        &self,
        id: i64,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        self.follow(&format!("/api/v1/heatpump/settings/outbox/{id}"), what, condition)
            .await
    }

    /// A plug's command once `condition` takes it.
    pub(crate) async fn plug_until(
        &self,
        (plug, id): (&str, i64),
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        self.follow(&format!("/api/v1/plugs/{plug}/outbox/{id}"), what, condition)
            .await
    }

    async fn follow(&self, path: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        let last = Mutex::new(Value::Null);
        let found = eventually(what, WITHIN * 2, async || {
            let command = self.get(path).await?;
            *last.lock().expect("no test panics while it holds this") = command.clone();
            Ok(condition(&command).then_some(command))
        });
        found.await.with_context(|| format!("{path}: {last:?}"))
    }

    /// The command at its end, which must be `status` with so many attempts.
    pub(crate) async fn ends(&self, id: i64, status: &str, attempts: i64) -> Result<Value> {
        let command = self.until(id, "the end", is_finished).await?;
        ended(command, status, attempts)
    }

    /// A plug's command at its end.
    pub(crate) async fn plug_ends(&self, plug: (&str, i64), status: &str, attempts: i64) -> Result<Value> {
        let command = self.plug_until(plug, "the end", is_finished).await?;
        ended(command, status, attempts)
    }

    pub(crate) async fn reported(&self, device: &str, field: &str, value: i64) -> Result<Value> {
        eventually("the reported value", WITHIN, async || {
            let settings = self.get(&format!("/api/v1/heatpump/settings/{device}")).await?;
            Ok((settings["reported"][field] == value).then_some(settings))
        })
        .await
    }

    /// Waits until a plug is known, and gives it.
    pub(crate) async fn plug(&self, plug: &str) -> Result<Value> {
        let path = format!("/api/v1/plugs/{plug}");
        eventually("the plug is known", WITHIN, async || {
            Ok(self.get(&path).await.ok())
        })
        .await
    }

    /// Whether its relay holds the lock.
    pub(crate) async fn is_active(&self) -> Result<bool> {
        let request = self.client.get(format!("http://{}/metrics", self.admin));
        let text = request.send().await?.text().await?;
        Ok(text
            .lines()
            .any(|line| line == "homelab_settings_api_relay_active 1"))
    }
}

/// Whether a command has come to its end.
pub(crate) fn is_finished(command: &Value) -> bool {
    command["finished_at"].is_string()
}

fn ended(command: Value, status: &str, attempts: i64) -> Result<Value> {
    ensure!(
        command["status"] == status && command["attempts"] == attempts,
        "{status} after {attempts} attempts was expected of {command}"
    );
    Ok(command)
}

/// The states a command was in.
pub(crate) fn statuses(command: &Value) -> Vec<&str> {
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
