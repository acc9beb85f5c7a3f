//! The MQTT broker of a running agent, judged from outside.
//!
//! `both`, `five` and `rules` follow the tests of the Eclipse Paho interoperability suites for MQTT 3.1.1 and 5 (which
//! connect with keep-alive 0), `delivery` the fine print of QoS 1 and 2, `capture` the promise that an acknowledgement
//! means on disk, `persistence` and `kills` what outlives the process, `stages` that no part dies alone, `doors` TLS and
//! WebSocket, `hostile` and `crowds` that nobody pays for what others do, `clients` and `interop` the ordinary use by clients
//! that people have, `access` who may do what, and `asked` what an operator hears of it. The bytes
//! come from a client of our own (`wire`, `client`), written apart from the broker's codecs, so that a mistake in those
//! cannot hide itself.

mod access;
mod agent;
mod asked;
mod both;
mod capture;
mod client;
mod clients;
mod crowds;
mod delivery;
mod doors;
mod five;
mod hostile;
mod interop;
mod kills;
mod persistence;
mod process;
mod rules;
mod stages;
mod wire;
