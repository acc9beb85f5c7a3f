//! What one address may take: connections, messages, bytes, and wrong passwords.
//!
//! An address that sends too fast is read more slowly, never cut off: nothing it sends is lost by that. Loopback has no
//! limits but those that the configuration sets.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Connections of one address. A bridge or a hub has one, a house behind one router some tens.
const CONNECTIONS: usize = 100;
/// Messages a second of one address: a hundred devices of ten messages a second each.
const MESSAGES_PER_SECOND: u32 = 1_000;
/// Bytes a second of one address.
const BYTES_PER_SECOND: u32 = 4 * 1024 * 1024;
/// Seconds' worth that may come at once.
const BURST_SECONDS: f64 = 2.0;
/// Longest pause at a time, so that a stop is still heard.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Wrong passwords of one address at once, and how long it takes to be given another try. A password costs a tenth of a
/// second to check; and nobody should guess ten thousand a day.
const WRONG_LOGINS: f64 = 10.0;
const LOGIN_RECOVERY: Duration = Duration::from_secs(6);
/// Addresses remembered for their wrong passwords, besides those that are connected.
const REMEMBERED: usize = 4_096;

/// Limits of one address; `None` is the default, which does not hold for loopback.
#[derive(Clone, Copy, Debug, Default)]
pub struct AddressLimits {
    /// Connections at a time.
    pub connections: Option<usize>,
    /// Messages a second.
    pub messages_per_second: Option<u32>,
    /// Bytes of messages a second.
    pub bytes_per_second: Option<u32>,
}

/// All addresses that are connected or remembered.
pub struct Addresses {
    limits: AddressLimits,
    known: Mutex<HashMap<IpAddr, Arc<Address>>>,
}

struct Address {
    state: Mutex<AddressState>,
    connections_max: usize,
}

struct AddressState {
    connections: usize,
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    logins: Bucket,
    /// That it is slowed down was said.
    said: bool,
}

/// Fills at a steady rate; may be overdrawn, and then says how long until it is not.
struct Bucket {
    per_second: f64,
    most: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_second: f64, most: f64, now: Instant) -> Self {
        Self {
            per_second,
            most,
            level: most,
            at: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * self.per_second).min(self.most);
        self.at = now;
    }

    fn take(&mut self, amount: f64, now: Instant) -> Duration {
        self.fill(now);
        self.level -= amount;
        if self.level >= 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(-self.level / self.per_second)
        }
    }
}

impl Addresses {
    /// None is known.
    pub fn new(limits: AddressLimits) -> Self {
        Self {
            limits,
            known: Mutex::default(),
        }
    }

    /// A connection of `peer`; `None` when it has too many.
    pub fn enter(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Option<Guest> {
        let key = network(peer);
        let mut known = self.known();
        if known.len() > REMEMBERED {
            known.retain(|_, address| !address.is_forgettable(now));
        }
        let address = known
            .entry(key)
            .or_insert_with(|| Arc::new(self.address(peer, now)))
            .clone();
        let mut state = address.state();
        if state.connections >= address.connections_max {
            return None;
        }
        state.connections += 1;
        drop(state);
        Some(Guest {
            addresses: self.clone(),
            key,
            address,
        })
    }

    fn address(&self, peer: IpAddr, now: Instant) -> Address {
        let loopback = peer.to_canonical().is_loopback();
        let rate = |set: Option<u32>, default: u32| {
            let per_second = set.or((!loopback).then_some(default))?;
            let per_second = f64::from(per_second.max(1));
            Some(Bucket::new(per_second, per_second * BURST_SECONDS, now))
        };
        let default = if loopback { usize::MAX } else { CONNECTIONS };
        Address {
            connections_max: self.limits.connections.unwrap_or(default),
            state: Mutex::new(AddressState {
                connections: 0,
                messages: rate(self.limits.messages_per_second, MESSAGES_PER_SECOND),
                bytes: rate(self.limits.bytes_per_second, BYTES_PER_SECOND),
                logins: Bucket::new(1.0 / LOGIN_RECOVERY.as_secs_f64(), WRONG_LOGINS, now),
                said: false,
            }),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<IpAddr, Arc<Address>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Address {
    fn state(&self) -> MutexGuard<'_, AddressState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Not connected, and its wrong passwords are long ago.
    fn is_forgettable(&self, now: Instant) -> bool {
        let mut state = self.state();
        state.logins.fill(now);
        state.connections == 0 && state.logins.level >= state.logins.most
    }
}

/// One connection's place at its address.
pub struct Guest {
    addresses: Arc<Addresses>,
    key: IpAddr,
    address: Arc<Address>,
}

impl Guest {
    /// Counts a message of theirs. Answers how long they are to be let wait before the next one is read.
    pub fn sends(&self, bytes: usize, now: Instant) -> Duration {
        let mut state = self.address.state();
        let messages = state.messages.as_mut().map(|bucket| bucket.take(1.0, now));
        let bytes = state.bytes.as_mut().map(|bucket| bucket.take(bytes as f64, now));
        let pause = messages.max(bytes).unwrap_or_default();
        if !pause.is_zero() && !std::mem::replace(&mut state.said, true) {
            tracing::warn!(address = %self.key, "an address sends more than it may and is read more slowly; this is said once");
        }
        pause.min(LONGEST_PAUSE)
    }

    /// Whether a password of theirs will be checked.
    pub fn may_log_in(&self, now: Instant) -> bool {
        let mut state = self.address.state();
        state.logins.fill(now);
        state.logins.level >= 1.0
    }

    /// A password of theirs was wrong.
    pub fn was_wrong(&self, now: Instant) {
        let mut state = self.address.state();
        state.logins.take(1.0, now);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut known = self.addresses.known();
        self.address.state().connections -= 1;
        if self.address.is_forgettable(Instant::now()) {
            known.remove(&self.key);
        }
    }
}

/// Who counts as one: an address, or the half of an IPv6 address that a network is given.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: &str = "127.0.0.1";
    const ELSEWHERE: &str = "192.0.2.7";

    fn enter(addresses: &Arc<Addresses>, peer: &str, now: Instant) -> Option<Guest> {
        addresses.enter(peer.parse().unwrap(), now)
    }

    #[test]
    fn connections_of_one_address_are_limited_and_come_back() {
        let (addresses, now) = (Arc::new(Addresses::new(AddressLimits::default())), Instant::now());
        let mut guests: Vec<_> = (0..CONNECTIONS)
            .map(|_| enter(&addresses, ELSEWHERE, now).unwrap())
            .collect();
        assert!(enter(&addresses, ELSEWHERE, now).is_none());
        assert!(enter(&addresses, "192.0.2.8", now).is_some(), "others do not pay");
        guests.pop();
        assert!(enter(&addresses, ELSEWHERE, now).is_some());
        guests.clear();
        assert!(addresses.known().is_empty());
        let many: Vec<_> = (0..500)
            .map(|_| enter(&addresses, LOOPBACK, now).unwrap())
            .collect();
        drop(many);
        let limits = AddressLimits {
            connections: Some(1),
            ..AddressLimits::default()
        };
        let addresses = Arc::new(Addresses::new(limits));
        let _one = enter(&addresses, LOOPBACK, now).unwrap();
        assert!(
            enter(&addresses, LOOPBACK, now).is_none(),
            "what is set holds for loopback too"
        );
    }

    #[test]
    fn a_network_of_ipv6_addresses_counts_as_one() {
        assert_eq!(
            network("2001:db8::1".parse().unwrap()),
            network("2001:db8::ffff:1".parse().unwrap())
        );
        assert_ne!(
            network("2001:db8::1".parse().unwrap()),
            network("2001:db8:0:1::1".parse().unwrap())
        );
        assert_eq!(
            network("::ffff:192.0.2.7".parse().unwrap()),
            ELSEWHERE.parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn who_sends_too_fast_is_read_more_slowly() {
        let limits = AddressLimits {
            messages_per_second: Some(10),
            ..AddressLimits::default()
        };
        let (addresses, now) = (Arc::new(Addresses::new(limits)), Instant::now());
        let guest = enter(&addresses, LOOPBACK, now).unwrap();
        assert!(
            (0..20).all(|_| guest.sends(100, now).is_zero()),
            "two seconds' worth at once"
        );
        let pause = guest.sends(100, now);
        assert!(
            pause > Duration::from_millis(90) && pause < Duration::from_millis(110),
            "{pause:?}"
        );
        assert!(guest.sends(100, now + Duration::from_secs(1)).is_zero());
        // A second connection of the address has no share of its own.
        let other = enter(&addresses, LOOPBACK, now).unwrap();
        for _ in 0..50 {
            other.sends(100, now);
        }
        assert_eq!(guest.sends(100, now), LONGEST_PAUSE);
    }

    #[test]
    fn wrong_passwords_run_out_and_come_back() {
        let (addresses, now) = (Arc::new(Addresses::new(AddressLimits::default())), Instant::now());
        for _ in 0..WRONG_LOGINS as u32 {
            // A new connection for each guess.
            let guest = enter(&addresses, LOOPBACK, now).unwrap();
            assert!(guest.may_log_in(now));
            guest.was_wrong(now);
        }
        let guest = enter(&addresses, LOOPBACK, now).unwrap();
        assert!(!guest.may_log_in(now));
        assert!(enter(&addresses, ELSEWHERE, now).unwrap().may_log_in(now));
        assert!(guest.may_log_in(now + 2 * LOGIN_RECOVERY));
    }
}
