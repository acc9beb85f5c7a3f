//! Who may connect, publish and subscribe.
//!
//! Closed by default: without users only loopback may connect anonymously, and nobody but the agent itself may
//! publish to the topics that command devices. No password is kept or logged here.

use std::net::IpAddr;

use serde::Deserialize;

use crate::topic_filter::TopicFilter;

/// Who may connect without a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// Nobody.
    Never,
    /// Clients on the same machine.
    #[default]
    Loopback,
    /// Everybody who reaches the port. For a network of its own.
    Anywhere,
}

/// Topics that make a device do something: `thermiq_heatpump/write` (ThermIQ), `cmnd/...` (Tasmota),
/// `<prefix>/rpc` (Shelly). A compromised plug must not be able to set the heat pump.
const COMMAND_TOPICS: [&str; 3] = ["thermiq_heatpump/write", "cmnd/#", "+/rpc"];

/// The rules of this agent.
pub struct Access {
    anonymous: Anonymous,
    command_topics: Vec<TopicFilter>,
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It gave no user and anonymous clients are not let in from its address.
    #[error("anonymous clients are not let in from this address; see mqtt.anonymous in the configuration")]
    Anonymous,
}

impl Access {
    /// Rules with the default command topics.
    pub fn new(anonymous: Anonymous) -> Self {
        let command_topics = COMMAND_TOPICS
            .iter()
            .map(|f| TopicFilter::parse(*f).expect("the constants are valid filters"))
            .collect();
        Self {
            anonymous,
            command_topics,
        }
    }

    /// Whether a client from `peer` may connect.
    pub fn connect(&self, peer: IpAddr) -> Result<(), Refused> {
        let allowed = match self.anonymous {
            Anonymous::Never => false,
            Anonymous::Loopback => peer.to_canonical().is_loopback(),
            Anonymous::Anywhere => true,
        };
        if allowed { Ok(()) } else { Err(Refused::Anonymous) }
    }

    /// Whether a client may publish on `topic`.
    pub fn may_publish(&self, topic: &str) -> bool {
        !topic.starts_with("$") && !self.command_topics.iter().any(|filter| filter.matches(topic))
    }

    /// Whether a client may subscribe to `filter`. Devices listen for their commands, so reading is open.
    pub fn may_subscribe(&self, _filter: &str) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_clients_come_from_where_the_configuration_says() {
        let check = |anonymous, peer: &str, want: bool| {
            let access = Access::new(anonymous);
            assert_eq!(
                access.connect(peer.parse().unwrap()).is_ok(),
                want,
                "{anonymous:?} {peer}"
            );
        };
        check(Anonymous::Loopback, "127.0.0.1", true);
        check(Anonymous::Loopback, "::1", true);
        check(Anonymous::Loopback, "::ffff:127.0.0.1", true);
        check(Anonymous::Loopback, "192.0.2.7", false);
        check(Anonymous::Loopback, "::ffff:192.0.2.7", false);
        check(Anonymous::Anywhere, "192.0.2.7", true);
        check(Anonymous::Never, "127.0.0.1", false);
    }

    #[test]
    fn devices_may_not_command_devices() {
        let access = Access::new(Anonymous::Loopback);
        for topic in [
            "thermiq_heatpump/write",
            "cmnd/plug/POWER",
            "shellyplugsg3-d0cf13c0ffee/rpc",
            "$SYS/x",
        ] {
            assert!(!access.may_publish(topic), "{topic}");
        }
        for topic in [
            "thermiq_heatpump/data",
            "stat/plug/POWER",
            "shellyplugsg3-d0cf13c0ffee/events/rpc",
            "a/b/rpc",
        ] {
            assert!(access.may_publish(topic), "{topic}");
        }
    }
}
