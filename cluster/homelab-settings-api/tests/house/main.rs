//! The settings API against real Kafka, a real PostgreSQL with the real migrations and a real issuer of tokens.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod changes;
mod plans;
mod reported;
mod world;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, TimeDelta, Utc};
use homelab_settings_api::{Settings, run};
use serde_json::{Value, json};
use service::server::Listeners;
use service::{Env, Lifecycle};
use stack::issuer::{ALL_SCOPES, TestIssuer};
use stack::kafka::{Choice, Kafka};
use stack::postgres::Postgres;
use tokio::runtime::Runtime;

use self::world::*;
