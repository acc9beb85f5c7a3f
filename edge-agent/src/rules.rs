//! What of the configuration can change while the agent runs: which topics are captured, how they are decoded, where a
//! device is.
//!
//! A message is judged by one set of rules from beginning to end; a new set is in force for the next message.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::decode::Decoders;

/// One set.
#[derive(Debug)]
pub struct Ruleset {
    /// Which topics are captured and how they are decoded.
    pub decoders: Decoders,
    /// Where a device is.
    pub locations: HashMap<String, String>,
}

/// The set in force.
#[derive(Debug)]
pub struct Rules(RwLock<Arc<Ruleset>>);

impl Rules {
    /// Begins with a set.
    pub fn new(decoders: Decoders, locations: HashMap<String, String>) -> Self {
        Self(RwLock::new(Arc::new(Ruleset { decoders, locations })))
    }

    /// The set in force.
    pub fn current(&self) -> Arc<Ruleset> {
        // Nothing between lock and unlock can panic.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another set in force.
    pub fn replace(&self, decoders: Decoders, locations: HashMap<String, String>) {
        let next = Arc::new(Ruleset { decoders, locations });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
    }
}
