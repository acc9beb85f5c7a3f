//! The beginning of a connection: CONNECT is read, and its sender let in or refused.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Instant};

use super::{
    Broker, Refusal as Reason,
    access::{Refused, Rights, Who},
    connection::{End, Peer},
    net::Stream,
    outbound::farewell,
    reader::{Frame, Reader},
    subscriptions::sound_topic,
    wire::{self, Connect, ConnectCode, DisconnectReason, Incoming, Malformed, Outgoing, Version},
};
use bytes::BytesMut;

/// Longest client id. The standard wants 23 to be possible; those of devices have some tens.
const CLIENT_ID_BYTES: usize = 256;

/// A connection that is not let in.
pub struct Refusal {
    version: Version,
    /// `None` stands for "say nothing, just close": before a sound CONNECT no answer is due.
    code: Option<ConnectCode>,
    reason: Reason,
    why: String,
    /// The id it gave, if it came as far.
    client_id: Option<String>,
}

impl Refusal {
    fn silent(why: impl Into<String>) -> Self {
        Self {
            version: Version::V311,
            code: None,
            reason: Reason::Connect,
            why: why.into(),
            client_id: None,
        }
    }

    /// Too many sessions.
    pub fn full(version: Version, client_id: &str) -> Self {
        Self {
            version,
            code: Some(ConnectCode::QuotaExceeded),
            reason: Reason::Sessions,
            why: "too many sessions".into(),
            client_id: Some(client_id.to_owned()),
        }
    }
}

impl From<End> for Refusal {
    fn from(end: End) -> Self {
        Self::silent(match end {
            End::Ours(_, why) => why,
            End::Lost(error) => error.to_string(),
            End::Goodbye(_) => "DISCONNECT before CONNECT".into(),
        })
    }
}

/// Reads the first packet.
pub async fn read_connect(reader: &mut Reader) -> Result<Box<Connect>, Refusal> {
    let Frame::Packet(frame) = reader.next(None).await? else {
        return Err(Refusal::silent("first packet is too large"));
    };
    match wire::connect_version(&frame).map_err(|e| Refusal::silent(e.to_string()))? {
        Ok(version) => match wire::decode(version, frame) {
            Ok(Incoming::Connect(connect)) => Ok(connect),
            Ok(_) => Err(Refusal::silent("first packet is not CONNECT")),
            Err(error) => Err(malformed(version, &error)),
        },
        Err(level) => {
            // Version 3.1 and whatever comes after 5 get the answer of the nearest version we speak. A bridge of Mosquitto's
            // begins with the highest bit set, and comes again without it when it is refused in the form of 3.1.1.
            let (version, code) = if level > 5 && level & 0x80 == 0 {
                (Version::V5, ConnectCode::UnsupportedProtocolVersion)
            } else {
                (Version::V311, ConnectCode::RefusedProtocolVersion)
            };
            Err(Refusal {
                version,
                code: Some(code),
                reason: Reason::Version,
                why: format!("protocol level {level} is not spoken"),
                client_id: None,
            })
        }
    }
}

/// Version 5 has words for a CONNECT that breaks a rule, 3.1.1 has not.
fn malformed(version: Version, error: &Malformed) -> Refusal {
    let code = match error.reason() {
        DisconnectReason::ProtocolError => ConnectCode::ProtocolError,
        _ => ConnectCode::MalformedPacket,
    };
    Refusal {
        version,
        code: (version == Version::V5).then_some(code),
        reason: Reason::Connect,
        why: error.to_string(),
        client_id: None,
    }
}

/// Whether a client is let in, and what it may do then.
pub async fn admit(broker: &Broker, from: &Peer, connect: &Connect) -> Result<Rights, Refusal> {
    let version = connect.version;
    let refuse = |code, reason, why: &str| {
        Err(Refusal {
            version,
            code: Some(code),
            reason,
            why: why.into(),
            client_id: Some(connect.client_id.clone()),
        })
    };
    if connect.enhanced_auth {
        return refuse(
            ConnectCode::BadAuthenticationMethod,
            Reason::Method,
            "enhanced authentication is not supported",
        );
    }
    if connect.client_id.is_empty() && version == Version::V311 && !connect.clean_start {
        return refuse(
            ConnectCode::ClientIdentifierNotValid,
            Reason::ClientId,
            "a session to be kept needs a client id",
        );
    }
    // Control characters would let a client write lines of its own into the log.
    if connect.client_id.len() > CLIENT_ID_BYTES || connect.client_id.chars().any(char::is_control) {
        return refuse(
            ConnectCode::ClientIdentifierNotValid,
            Reason::ClientId,
            "the client id is too long or has control characters",
        );
    }
    let access = &broker.settings.access;
    let who = Who {
        peer: from.peer.ip(),
        login: connect.login.as_ref(),
        certified: from.name.as_deref(),
        may_log_in: from.guest.may_log_in(Instant::now()),
    };
    let rights = match access.connect(who, &connect.client_id).await {
        Ok(rights) => rights,
        Err(error) => {
            let (code, reason) = match error {
                Refused::Anonymous => (ConnectCode::NotAuthorized, Reason::Anonymous),
                Refused::WrongLogin => (ConnectCode::BadUserNamePassword, Reason::Login),
                Refused::TooManyLogins => (ConnectCode::ConnectionRateExceeded, Reason::LoginRate),
            };
            if error != Refused::Anonymous {
                broker.counters.failed_logins.fetch_add(1, Ordering::Relaxed);
            }
            if error == Refused::WrongLogin {
                from.guest.was_wrong(Instant::now());
            }
            return refuse(code, reason, &error.to_string());
        }
    };
    if let Some(will) = &connect.will
        && !sound_topic(&will.publish.topic)
    {
        return refuse(
            ConnectCode::TopicNameInvalid,
            Reason::Will,
            "the will's topic is not a topic name",
        );
    }
    // Said now: when the will is due there is nobody left to tell.
    if let Some(will) = &connect.will
        && !rights.may_publish(&will.publish.topic)
    {
        return refuse(
            ConnectCode::NotAuthorized,
            Reason::Will,
            "the client may not publish on its will's topic",
        );
    }
    Ok(rights)
}

/// Sends a client away that was not let in.
pub async fn refuse(broker: &Broker, mut stream: Stream, peer: SocketAddr, refusal: Refusal) {
    broker
        .counters
        .refused_connections
        .fetch_add(1, Ordering::Relaxed);
    tracing::info!(%peer, why = %refusal.why, "a client was not let in");
    broker.visitors.not_let_in(
        peer.ip(),
        refusal.client_id.as_deref(),
        refusal.reason,
        &refusal.why,
    );
    let code = match (refusal.version, refusal.code) {
        (_, None) | (Version::V311, Some(ConnectCode::TopicNameInvalid)) => return,
        (Version::V311, Some(ConnectCode::QuotaExceeded | ConnectCode::ConnectionRateExceeded)) => {
            ConnectCode::ServiceUnavailable
        }
        (Version::V311, Some(ConnectCode::BadAuthenticationMethod)) => ConnectCode::NotAuthorized,
        (_, Some(code)) => code,
    };
    let mut out = BytesMut::new();
    if wire::encode(refusal.version, Outgoing::ConnAck(false, code, None), &mut out).is_ok() {
        farewell(&mut stream, &out).await;
    }
}
