//! Which records a partition has brought already.
//!
//! An agent that was killed sends what it cannot know to be delivered once more, under the same id. The database keeps
//! one of them by its key; clients get one because of this. It remembers hashes, of so many records and no more.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// Ids remembered of a partition: well over what an agent has under way when it is killed. A start reads as many records.
/// Under 2 MB for all thirteen partitions.
pub const SEEN_IDS: usize = 8_192;

/// The last ids of one partition. Two ids with the same 64-bit hash under a secret key are not expected in its life.
#[derive(Debug, Default)]
pub(super) struct Seen {
    key: RandomState,
    order: VecDeque<u64>,
    hashes: HashSet<u64>,
}

impl Seen {
    /// Remembers `id`; false when it is remembered already.
    pub fn is_new(&mut self, id: &str) -> bool {
        let hash = self.key.hash_one(id);
        if !self.hashes.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > SEEN_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once_and_again_when_it_was_forgotten() {
        let mut seen = Seen::default();
        assert!(seen.is_new("first"));
        for n in 1..SEEN_IDS {
            assert!(seen.is_new(&n.to_string()));
        }
        assert!(!seen.is_new("first"));
        assert!(seen.is_new("one more"));
        assert!(seen.is_new("first"));
        assert_eq!((seen.order.len(), seen.hashes.len()), (SEEN_IDS, SEEN_IDS));
    }
}
