//! The two wire formats, MQTT 3.1.1 and 5, behind one pair of packet types.
//!
//! Most bytes are read and written by rumqttd's codecs. This module adds what they leave out: telling the versions
//! apart, the fixed header's flags, packets only a server may send (its version 5 reader panics on them), the rules
//! of properties and options, and PUBLISH towards clients, written without a second copy of the payload. A frame it
//! refuses costs its sender the connection. It never touches a socket and keeps no state.

mod header;
mod properties;
mod read;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use rumqttd::protocol::{self as codec, ConnAckProperties};

pub use codec::{ConnectReturnCode as ConnectCode, PublishProperties, QoS, UnsubAckReason};
pub use header::FixedHeader;
pub use properties::{put_variable, weight};
pub use read::{connect_version, decode};
pub use write::{encode, publish_len};

/// Protocol version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5,
}

/// Why a frame is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// The codec's word.
    #[error("{0}")]
    Codec(#[from] codec::Error),
    /// It does not have the form of a packet.
    #[error("{0}")]
    Form(&'static str),
    /// It has the form of a packet that may not be sent.
    #[error("{0}")]
    Rule(&'static str),
}

impl Malformed {
    /// The reason version 5 has for it.
    pub const fn reason(&self) -> DisconnectReason {
        match self {
            Malformed::Codec(
                codec::Error::PacketIdZero
                | codec::Error::EmptySubscription
                | codec::Error::InvalidRetainForwardRule(_),
            )
            | Malformed::Rule(_) => DisconnectReason::ProtocolError,
            Malformed::Codec(_) | Malformed::Form(_) => DisconnectReason::MalformedPacket,
        }
    }
}

/// What a client may send.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// First packet of a connection.
    Connect(Box<Connect>),
    /// A message.
    Publish(Publish),
    /// Acknowledges a message of ours at QoS 1.
    PubAck(u16),
    /// Acknowledges a message of ours at QoS 2; false when the client refuses it.
    PubRec(u16, bool),
    /// Releases a message of theirs at QoS 2.
    PubRel(u16),
    /// Completes a message of ours at QoS 2.
    PubComp(u16),
    /// Asks for messages.
    Subscribe(Subscribe),
    /// Wants messages no longer.
    Unsubscribe(u16, Vec<String>),
    /// Keeps the connection alive.
    PingReq,
    /// Ends the connection.
    Disconnect(Goodbye),
}

/// First packet of a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Connect {
    /// Protocol version.
    pub version: Version,
    /// Client id; empty asks for one to be assigned.
    pub client_id: String,
    /// Discard what is kept of an earlier session.
    pub clean_start: bool,
    /// Seconds; 0 for none.
    pub keep_alive: u16,
    /// User and password.
    pub login: Option<(String, String)>,
    /// Published when the connection is lost.
    pub will: Option<Will>,
    /// Seconds the session outlives the connection; `None` where the version has no such field.
    pub session_expiry: Option<u32>,
    /// Messages above QoS 0 the client takes before it acknowledges.
    pub receive_maximum: u16,
    /// Largest packet the client takes.
    pub max_packet_size: Option<u32>,
    /// Topic aliases the client lets us set.
    pub topic_alias_max: u16,
    /// The client wants an exchange of AUTH packets, which is not supported.
    pub enhanced_auth: bool,
}

/// Published when a connection is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// The message; its packet id is 0.
    pub publish: Publish,
    /// Seconds to wait before.
    pub delay_seconds: u32,
}

/// A message in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Packet id, 0 at QoS 0.
    pub pkid: u16,
    /// To be retained; towards a client: was retained.
    pub retain: bool,
    /// Topic name; empty where version 5 sends an alias alone.
    pub topic: Arc<str>,
    /// Payload.
    pub payload: Bytes,
    /// Version 5 only.
    pub properties: Option<Box<PublishProperties>>,
}

/// Asks for messages.
#[derive(Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Packet id.
    pub pkid: u16,
    /// Subscription identifier of version 5.
    pub id: Option<usize>,
    /// What is asked for.
    pub filters: Vec<Filter>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, PartialEq, Eq)]
pub struct Filter {
    /// The filter, unchecked.
    pub path: String,
    /// Highest QoS wanted.
    pub qos: QoS,
    /// Not the client's own messages.
    pub no_local: bool,
    /// Keep the retain flag as published.
    pub retain_as_published: bool,
    /// When retained messages are wanted.
    pub retain_handling: RetainHandling,
}

/// When retained messages are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainHandling {
    /// At every subscribe.
    Always,
    /// When the subscription is new.
    WhenNew,
    /// Never.
    Never,
}

/// How a client says goodbye.
#[derive(Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// The will shall be published all the same.
    pub with_will: bool,
    /// A new session expiry, seconds.
    pub session_expiry: Option<u32>,
}

/// What a server may send.
#[derive(Debug)]
pub enum Outgoing {
    /// Answers CONNECT.
    ConnAck(bool, ConnectCode, Option<Box<ConnAckProperties>>),
    /// A message.
    Publish(Publish),
    /// Acknowledges at QoS 1.
    PubAck(u16, Verdict),
    /// Acknowledges at QoS 2.
    PubRec(u16, Verdict),
    /// Releases at QoS 2; false when the packet id was not known.
    PubRel(u16, bool),
    /// Completes at QoS 2; false when the packet id was not known.
    PubComp(u16, bool),
    /// Answers SUBSCRIBE.
    SubAck(u16, Vec<SubscribeVerdict>),
    /// Answers UNSUBSCRIBE.
    UnsubAck(u16, Vec<UnsubAckReason>),
    /// Answers PINGREQ.
    PingResp,
    /// Ends a version 5 connection with a reason; version 3.1.1 has no such packet and is just closed.
    Disconnect(DisconnectReason),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted.
    Accepted,
    /// The sender may not publish there. Version 3.1.1 cannot say so: it reads as accepted.
    NotAuthorized,
    /// The payload is larger than what is passed on. Version 3.1.1 cannot say so.
    TooLarge,
}

/// What became of one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeVerdict {
    /// Granted at this QoS.
    Granted(QoS),
    /// The client may not.
    NotAuthorized,
    /// The filter is malformed or too deep.
    InvalidFilter,
    /// A limit is reached.
    QuotaExceeded,
}

/// Reasons we end a connection for; the numbers are those of MQTT 5 section 3.14.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DisconnectReason {
    /// A packet could not be read.
    MalformedPacket = 0x81,
    /// A packet came that may not come.
    ProtocolError = 0x82,
    /// The agent stops.
    ServerShuttingDown = 0x8B,
    /// Nothing was heard for 1.5 keep-alives.
    KeepAliveTimeout = 0x8D,
    /// The same client id connected again.
    SessionTakenOver = 0x8E,
    /// The topic has wildcards, is empty, or too deep.
    TopicNameInvalid = 0x90,
    /// More messages than agreed wait for their acknowledgement.
    ReceiveMaximumExceeded = 0x93,
    /// An alias that was not agreed.
    TopicAliasInvalid = 0x94,
    /// The packet is larger than agreed.
    PacketTooLarge = 0x95,
    /// The buffer is full, or a queue is.
    QuotaExceeded = 0x97,
}
