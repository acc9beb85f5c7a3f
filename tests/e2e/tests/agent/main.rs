//! The agent's own binary, and the services, against a broker they have to log in to; the agent's dead letters; and what it tells
//! systemd.
//!
//! Everything is real: the process, Kafka with TLS, SCRAM and the access lists of `gitops/`, MQTT clients on sockets.

mod clocks;
mod letters;
mod lone;
mod manners;
mod refusals;
mod secured;
mod services;
