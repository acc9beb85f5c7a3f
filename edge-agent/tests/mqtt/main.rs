//! The MQTT broker of a running agent, judged from outside.
//!
//! `both`, `five` and `rules` follow the tests of the Eclipse Paho interoperability suites for MQTT 3.1.1 and 5 (which
//! connect with keep-alive 0), `delivery` the fine print of QoS 1 and 2, `capture` the promise that an acknowledgement
//! means on disk, `hostile` and `crowds` that nobody pays for what others do, and `clients` the ordinary use. The bytes
//! come from a client of our own (`wire`, `client`), written apart from the broker's codecs, so that a mistake in those
//! cannot hide itself.

mod agent;
mod both;
mod capture;
mod client;
mod clients;
mod crowds;
mod delivery;
mod five;
mod hostile;
mod rules;
mod wire;
