//! Every real part on one machine, brought up and taken down again.
//!
//! The demo, the end-to-end tests, the browser tests and the benchmarks use this one library. It binds to 127.0.0.1 only,
//! on free ports, in one scratch folder per run. It never leaves a process behind, whatever ends the run (see
//! [`guardian`]), and it never uses a database, a broker or a port that it did not start, except a Kafka named by
//! `KAFKA_BOOTSTRAP`.

pub mod binaries;
pub mod control;
pub mod frames;
pub mod gateway;
pub mod guardian;
pub mod house;
pub mod http;
pub mod issuer;
pub mod kafka;
pub mod live;
pub mod mqtt;
pub mod oidc;
pub mod part;
pub mod port;
pub mod postgres;
pub mod secured;
pub mod smoke;
pub mod stack;
pub mod timescale;
pub mod web;

pub use house::Devices;
pub use stack::{Agent, Options, Running, Service, Stack};
