//! Who came, who was sent away and why: for `edge-agent devices`, `/status` and metrics.
//!
//! Kept in memory since the start, and bounded: the client heard longest ago makes room. Holds no payload and no password.
//! A client id that was never let in is only its sender's word, so what such clients tried is kept by their address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::wire::{DisconnectReason, Version};

/// Clients remembered, connected or not: as many as may be connected by default.
const CLIENTS: usize = 1_000;
/// Addresses remembered from which clients were not let in.
const STRANGERS: usize = 200;
/// Characters kept of a topic, a filter or a reason.
const DETAIL_CHARS: usize = 120;

/// What was refused: one word each, which is also the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A connection: its address had too many.
    AddressLimit,
    /// A connection: no CONNECT, or no handshake, in time.
    Timeout,
    /// A connection: TLS or WebSocket was not spoken.
    Handshake,
    /// A connection: its first packet was no sound CONNECT.
    Connect,
    /// A connection: a version that is not spoken.
    Version,
    /// A connection: a client id that cannot be used.
    ClientId,
    /// A connection: enhanced authentication.
    Method,
    /// A connection: no user, where one is needed.
    Anonymous,
    /// A connection: wrong user or password.
    Login,
    /// A connection: too many logins of its address.
    LoginRate,
    /// A connection: a will that may not be published.
    Will,
    /// A connection: too many sessions.
    Sessions,
    /// A message on a topic where the client may not publish.
    Publish,
    /// A subscription the client has no right to, or that is no filter, or one too many.
    Subscribe,
    /// A client that broke a rule of MQTT and was disconnected.
    Protocol,
    /// A client that was silent for 1.5 keep-alives.
    KeepAlive,
    /// A client whose message could not be kept, or whose queue was full.
    Quota,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 17] = [
        Refusal::AddressLimit,
        Refusal::Timeout,
        Refusal::Handshake,
        Refusal::Connect,
        Refusal::Version,
        Refusal::ClientId,
        Refusal::Method,
        Refusal::Anonymous,
        Refusal::Login,
        Refusal::LoginRate,
        Refusal::Will,
        Refusal::Sessions,
        Refusal::Publish,
        Refusal::Subscribe,
        Refusal::Protocol,
        Refusal::KeepAlive,
        Refusal::Quota,
    ];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Refusal::AddressLimit => "address_limit",
            Refusal::Timeout => "timeout",
            Refusal::Handshake => "handshake",
            Refusal::Connect => "connect",
            Refusal::Version => "version",
            Refusal::ClientId => "client_id",
            Refusal::Method => "method",
            Refusal::Anonymous => "anonymous",
            Refusal::Login => "login",
            Refusal::LoginRate => "login_rate",
            Refusal::Will => "will",
            Refusal::Sessions => "sessions",
            Refusal::Publish => "publish",
            Refusal::Subscribe => "subscribe",
            Refusal::Protocol => "protocol",
            Refusal::KeepAlive => "keep_alive",
            Refusal::Quota => "quota",
        }
    }

    /// The word for a connection we ended; `None` where nothing was refused.
    pub const fn of(reason: DisconnectReason) -> Option<Self> {
        match reason {
            DisconnectReason::ServerShuttingDown | DisconnectReason::SessionTakenOver => None,
            DisconnectReason::KeepAliveTimeout => Some(Refusal::KeepAlive),
            DisconnectReason::QuotaExceeded => Some(Refusal::Quota),
            DisconnectReason::MalformedPacket
            | DisconnectReason::ProtocolError
            | DisconnectReason::TopicNameInvalid
            | DisconnectReason::ReceiveMaximumExceeded
            | DisconnectReason::TopicAliasInvalid
            | DisconnectReason::PacketTooLarge => Some(Refusal::Protocol),
        }
    }
}

impl Serialize for Refusal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// What was refused last, and how often anything was.
#[derive(Clone, Debug, Serialize)]
pub struct Refusals {
    /// How often.
    pub count: u64,
    /// When last.
    pub time: DateTime<Utc>,
    /// What, last.
    pub reason: Refusal,
    /// The topic, the filter, or the rule.
    pub detail: String,
}

/// A client that was let in.
#[derive(Clone, Debug, Serialize)]
pub struct Visitor {
    /// Its id.
    pub client_id: String,
    /// Where it came from last.
    pub address: IpAddr,
    /// As whom.
    pub user: Option<String>,
    /// MQTT 3.1.1 or 5.
    pub version: &'static str,
    /// It is there now.
    pub connected: bool,
    /// Times it came.
    pub connections: u64,
    /// When it came last.
    pub connected_at: DateTime<Utc>,
    /// When a packet of it came last.
    pub last_seen: DateTime<Utc>,
    /// What was refused to it.
    pub refused: Option<Refusals>,
}

/// An address from which somebody was not let in.
#[derive(Clone, Debug, Serialize)]
pub struct Stranger {
    /// The address.
    pub address: IpAddr,
    /// The id it gave last, if it came as far.
    pub client_id: Option<String>,
    /// What was refused to it.
    pub refused: Refusals,
}

/// When a client was heard last, kept up by its connection.
#[derive(Clone, Debug)]
pub struct Heard(Arc<AtomicI64>);

impl Heard {
    /// Now.
    pub fn now(&self) {
        self.0.store(Utc::now().timestamp_millis(), Ordering::Relaxed);
    }

    fn time(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0.load(Ordering::Relaxed)).unwrap_or_default()
    }
}

struct Client {
    address: IpAddr,
    user: Option<String>,
    version: Version,
    /// Connections that have not ended; two while one takes over the other.
    open: u32,
    connections: u64,
    connected_at: DateTime<Utc>,
    heard: Heard,
    refused: Option<Refusals>,
}

#[derive(Default)]
struct Book {
    clients: HashMap<Arc<str>, Client>,
    strangers: HashMap<IpAddr, Stranger>,
}

/// See the module.
pub struct Visitors {
    book: Mutex<Book>,
    counts: [AtomicU64; Refusal::ALL.len()],
}

impl Default for Visitors {
    fn default() -> Self {
        Self {
            book: Mutex::default(),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Visitors {
    /// A client was let in.
    pub fn came(&self, client: &Arc<str>, address: IpAddr, user: Option<&str>, version: Version) -> Heard {
        let now = Utc::now();
        let mut book = self.book();
        if book.clients.len() >= CLIENTS && !book.clients.contains_key(client) {
            let oldest = book
                .clients
                .iter()
                .min_by_key(|(_, c)| (c.open > 0, c.heard.time()));
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                book.clients.remove(&oldest);
            }
        }
        let known = book.clients.entry(client.clone()).or_insert_with(|| Client {
            address,
            user: None,
            version,
            open: 0,
            connections: 0,
            connected_at: now,
            heard: Heard(Arc::default()),
            refused: None,
        });
        known.address = address.to_canonical();
        known.user = user.map(str::to_owned);
        known.version = version;
        known.open += 1;
        known.connections += 1;
        known.connected_at = now;
        known.heard.now();
        known.heard.clone()
    }

    /// A connection of a client ended.
    pub fn went(&self, client: &str) {
        if let Some(known) = self.book().clients.get_mut(client) {
            known.open = known.open.saturating_sub(1);
        }
    }

    /// Something was refused to a client that had been let in.
    pub fn refused(&self, client: &str, reason: Refusal, detail: &str) {
        self.count(reason);
        if let Some(known) = self.book().clients.get_mut(client) {
            note(&mut known.refused, reason, detail);
        }
    }

    /// Somebody was not let in.
    pub fn not_let_in(&self, address: IpAddr, client_id: Option<&str>, reason: Refusal, detail: &str) {
        self.count(reason);
        let address = address.to_canonical();
        let mut book = self.book();
        if book.strangers.len() >= STRANGERS && !book.strangers.contains_key(&address) {
            let oldest = book.strangers.values().min_by_key(|s| s.refused.time);
            if let Some(oldest) = oldest.map(|s| s.address) {
                book.strangers.remove(&oldest);
            }
        }
        let stranger = book.strangers.remove(&address);
        let (told, refused) = stranger.map_or((None, None), |s| (s.client_id, Some(s.refused)));
        let mut refusals = refused;
        note(&mut refusals, reason, detail);
        let Some(refused) = refusals else { return };
        let client_id = client_id.filter(|id| !id.is_empty()).map(shown).or(told);
        let stranger = Stranger {
            address,
            client_id,
            refused,
        };
        book.strangers.insert(address, stranger);
    }

    /// How often something was refused for this reason.
    pub fn refusals(&self, reason: Refusal) -> u64 {
        self.counts[reason as usize].load(Ordering::Relaxed)
    }

    /// Clients by id.
    pub fn clients(&self) -> Vec<Visitor> {
        let book = self.book();
        let mut clients: Vec<_> = book
            .clients
            .iter()
            .map(|(id, client)| Visitor {
                client_id: id.to_string(),
                address: client.address,
                user: client.user.clone(),
                version: match client.version {
                    Version::V311 => "3.1.1",
                    Version::V5 => "5",
                },
                connected: client.open > 0,
                connections: client.connections,
                connected_at: client.connected_at,
                last_seen: client.heard.time(),
                refused: client.refused.clone(),
            })
            .collect();
        clients.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        clients
    }

    /// Those who were not let in, by address.
    pub fn strangers(&self) -> Vec<Stranger> {
        let mut strangers: Vec<_> = self.book().strangers.values().cloned().collect();
        strangers.sort_by_key(|s| s.address);
        strangers
    }

    fn count(&self, reason: Refusal) {
        self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing between lock and unlock can panic.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(refused: &mut Option<Refusals>, reason: Refusal, detail: &str) {
    *refused = Some(Refusals {
        count: refused.as_ref().map_or(0, |r| r.count) + 1,
        time: Utc::now(),
        reason,
        detail: shown(detail),
    });
}

/// A text from outside on one line, and not longer than a person reads.
pub fn shown(text: &str) -> String {
    text.chars()
        .take(DETAIL_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_client_is_there_until_its_last_connection_ends() {
        let visitors = Visitors::default();
        let id: Arc<str> = "plug".into();
        visitors.came(&id, address("192.0.2.1"), Some("p"), Version::V311);
        visitors.came(&id, address("192.0.2.2"), Some("p"), Version::V5);
        // The connection that was taken over ends after the new one began.
        visitors.went("plug");
        let [client] = &visitors.clients()[..] else {
            panic!("one")
        };
        assert!(client.connected);
        assert_eq!(
            (client.connections, client.version, client.address),
            (2, "5", address("192.0.2.2"))
        );
        visitors.went("plug");
        assert!(!visitors.clients()[0].connected);
    }

    #[test]
    fn what_is_refused_is_kept_by_client_or_by_address_and_counted() {
        let visitors = Visitors::default();
        let id: Arc<str> = "plug".into();
        visitors.came(&id, address("192.0.2.1"), None, Version::V311);
        visitors.refused("plug", Refusal::Publish, "cmnd/x\nPOWER");
        visitors.refused("plug", Refusal::Subscribe, "secret/#");
        visitors.not_let_in(
            address("::ffff:192.0.2.9"),
            Some("guess"),
            Refusal::Login,
            "user or password is wrong",
        );
        visitors.not_let_in(address("192.0.2.9"), None, Refusal::Timeout, "");
        let refused = visitors.clients()[0].refused.clone().unwrap();
        assert_eq!((refused.count, refused.reason), (2, Refusal::Subscribe));
        let [stranger] = &visitors.strangers()[..] else {
            panic!("one address")
        };
        assert_eq!(stranger.client_id.as_deref(), Some("guess"));
        assert_eq!(
            (stranger.refused.count, stranger.refused.reason),
            (2, Refusal::Timeout)
        );
        for (reason, want) in [(Refusal::Publish, 1), (Refusal::Login, 1), (Refusal::Will, 0)] {
            assert_eq!(visitors.refusals(reason), want, "{reason:?}");
        }
        assert_eq!(shown("a\nb"), "a b");
    }

    #[test]
    fn both_lists_are_bounded_and_those_connected_stay() {
        let visitors = Visitors::default();
        let here: Arc<str> = "here".into();
        visitors.came(&here, address("192.0.2.1"), None, Version::V5);
        for n in 0..2 * CLIENTS {
            let id: Arc<str> = format!("c{n}").into();
            visitors.came(&id, address("192.0.2.1"), None, Version::V5);
            visitors.went(&id);
            let from = std::net::Ipv4Addr::from_bits(n as u32);
            visitors.not_let_in(from.into(), Some(&"x".repeat(1_000)), Refusal::Login, "");
        }
        assert_eq!(visitors.clients().len(), CLIENTS);
        assert!(visitors.clients().iter().any(|c| c.client_id == "here"));
        assert_eq!(visitors.strangers().len(), STRANGERS);
        assert!(
            visitors
                .strangers()
                .iter()
                .all(|s| s.client_id.as_ref().is_some_and(|id| id.len() == DETAIL_CHARS))
        );
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let words: std::collections::HashSet<_> = Refusal::ALL.map(Refusal::word).into_iter().collect();
        assert_eq!(words.len(), Refusal::ALL.len());
        for (n, reason) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, n);
        }
    }
}
