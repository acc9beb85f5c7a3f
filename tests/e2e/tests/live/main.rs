//! energy-ws against real Kafka and signed tokens: what is sent, to whom, and how each connection ends.
//!
//! Most tests share one process, as its clients do; those that restart, stop or limit it start one of their own.
//! `streams`, `tokens`, `resuming`, `limits`: what it is for. `hostile`: what tries to break it. `contract`:
//! docs/asyncapi.yaml against real messages.

mod contract;
mod hostile;
mod limits;
mod resuming;
mod streams;
mod tokens;
mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use serde_json::{Value, json};
use stack::issuer::{AUDIENCE, TestIssuer, TokenSpec};
use stack::kafka::{Choice, Kafka};
use stack::part::{Part, eventually};
use stack::{binaries, guardian, http, port};
use telemetry::topic;
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use self::world::*;
