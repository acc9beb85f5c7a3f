//! How many connections there may be, in all and of one user.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections in all: what fits a pod of 100 MB at 40 kB each.
pub const CONNECTIONS: usize = 2_048;

/// Connections that have not shown a token yet: strangers cannot take every place.
pub const STRANGERS: usize = CONNECTIONS / 2;

/// Counts connections.
pub struct Seats {
    per_user: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    strangers: usize,
    of_user: HashMap<Arc<str>, usize>,
}

/// A connection's place, given back when it is dropped.
pub struct Seat {
    seats: Arc<Seats>,
    is_stranger: AtomicBool,
}

/// A user's place, given back when it is dropped.
pub struct UserSeat {
    seats: Arc<Seats>,
    user: Arc<str>,
}

impl Seats {
    /// `per_user` connections for each user.
    pub fn new(per_user: usize) -> Arc<Self> {
        Arc::new(Self {
            per_user,
            taken: Mutex::default(),
        })
    }

    /// A place for a connection, taken before it is known whose it is.
    pub fn connection(self: &Arc<Self>) -> Option<Seat> {
        let mut taken = self.taken();
        if taken.all >= CONNECTIONS || taken.strangers >= STRANGERS {
            return None;
        }
        taken.all += 1;
        taken.strangers += 1;
        Some(Seat {
            seats: self.clone(),
            is_stranger: AtomicBool::new(true),
        })
    }

    /// A place for one more connection of `user`.
    pub fn user(self: &Arc<Self>, user: &str) -> Option<UserSeat> {
        let mut taken = self.taken();
        let user = taken
            .of_user
            .get_key_value(user)
            .map_or_else(|| Arc::from(user), |(known, _)| known.clone());
        let count = taken.of_user.entry(user.clone()).or_default();
        if *count >= self.per_user {
            return None;
        }
        *count += 1;
        Some(UserSeat {
            seats: self.clone(),
            user,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// The connection has shown whose it is.
    pub fn admitted(&self) {
        if self.is_stranger.swap(false, Ordering::Relaxed) {
            self.seats.taken().strangers -= 1;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.admitted();
        self.seats.taken().all -= 1;
    }
}

impl Drop for UserSeat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if let Some(count) = taken.of_user.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                taken.of_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_limited_and_given_back() {
        let seats = Seats::new(2);
        let (first, _second) = (seats.user("a").unwrap(), seats.user("a").unwrap());
        assert!(seats.user("a").is_none());
        assert!(seats.user("b").is_some());
        drop(first);
        assert!(seats.user("a").is_some());
        assert_eq!(
            seats.taken().of_user.len(),
            1,
            "users without connections are forgotten"
        );

        let connect = |count| {
            (0..count)
                .map(|_| seats.connection().unwrap())
                .collect::<Vec<_>>()
        };
        let strangers = connect(STRANGERS);
        assert!(
            seats.connection().is_none(),
            "a place is left for those who show a token"
        );
        strangers.iter().for_each(Seat::admitted);
        let others = connect(CONNECTIONS - STRANGERS);
        others.iter().for_each(Seat::admitted);
        assert!(seats.connection().is_none());
        drop((strangers, others));
        let left = seats.taken();
        assert_eq!((left.all, left.strangers), (0, 0));
    }
}
