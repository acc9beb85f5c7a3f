//! Every answer of the read API against a real PostgreSQL with the real migrations and a real issuer of tokens.
//!
//! The tests share one service and one database; each has devices of its own. The one test that needs the whole house
//! to itself, and those that break the database, start their own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod contract;
mod cost;
mod coverage;
mod document;
mod forms;
mod history;
mod hostile;
mod house;
mod latest;
mod manners;
mod role;

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use homelab_api::{Settings, run};
use serde_json::{Value, json};
use service::server::Listeners;
use service::{Env, Lifecycle};
use stack::issuer::{ALL_SCOPES, TestIssuer};
use stack::postgres::Postgres;
use tokio::runtime::Runtime;

use self::house::*;
