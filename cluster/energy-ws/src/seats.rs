//! How many connections there may be, in all and of one user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections in all: what fits a pod of 100 MB at 40 kB each.
pub const CONNECTIONS: usize = 2_048;

/// Counts connections.
pub struct Seats {
    per_user: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    of_user: HashMap<Arc<str>, usize>,
}

/// A connection's place, given back when it is dropped.
pub struct Seat(Arc<Seats>);

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
        if taken.all >= CONNECTIONS {
            return None;
        }
        taken.all += 1;
        Some(Seat(self.clone()))
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

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken().all -= 1;
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

        let all: Vec<_> = (0..CONNECTIONS).map(|_| seats.connection().unwrap()).collect();
        assert!(seats.connection().is_none());
        drop(all);
        assert_eq!(seats.taken().all, 0);
    }
}
