//! Tries to make the edge agent lose, double, reorder or invent a reading.
//!
//! The agent's own binary runs against real Kafka and is killed at random moments, its links are cut, its broker is paused
//! and killed, while clients publish and resend what was not acknowledged. Its disk is filled, by itself and by others, and
//! its broker stays away until a long backlog waits. Another part records what the agent writes and syncs, rebuilds the disk
//! as a power cut could have left it, and looks at what is found there, readings and MQTT sessions.
//!
//! Every message has an identity, the device and a number, and is counted by it at the far end. Nothing here looks into
//! the agent while it runs, and nothing is forgiven: an acknowledged message is there once and in order, or the run fails.

pub mod agent;
pub mod backlog;
pub mod client;
pub mod disk;
pub mod far_end;
pub mod fleet;
pub mod kills;
pub mod ledger;
pub mod link;
pub mod namespaces;
pub mod packet;
pub mod post;
pub mod power;
pub mod recording;
pub mod report;

pub use report::Report;
