//! A message on its way to one client.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::wire::{self, Publish, PublishProperties, QoS};

/// What a message costs besides its topic, payload and properties.
const DELIVERY_BYTES: usize = 160;

/// A message for one client.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Topic.
    pub topic: Arc<str>,
    /// Payload.
    pub payload: Bytes,
    /// QoS after the subscription's limit.
    pub qos: QoS,
    /// The retain flag towards the client.
    pub retain: bool,
    /// As published, version 5 only.
    pub properties: Option<Arc<PublishProperties>>,
    /// Identifiers of the subscriptions that matched.
    pub ids: Vec<usize>,
    /// Not sent after this.
    pub expires: Option<Instant>,
    /// Its place in the store, where it has one.
    pub stored: Option<u64>,
    /// It may have been sent before the agent started.
    pub sent_before: bool,
}

impl Delivery {
    /// Bytes it costs while it waits.
    pub fn bytes(&self) -> usize {
        let properties = self.properties.as_ref().map_or(0, |p| wire::weight(p));
        DELIVERY_BYTES + self.topic.len() + self.payload.len() + properties + 8 * self.ids.len()
    }

    /// The packet that carries it.
    pub fn publish(&self, pkid: u16, dup: bool, now: Instant) -> Publish {
        let mut properties = self.properties.as_ref().map(|p| Box::new((**p).clone()));
        if !self.ids.is_empty() {
            properties
                .get_or_insert_with(Box::default)
                .subscription_identifiers
                .clone_from(&self.ids);
        }
        if let (Some(expires), Some(properties)) = (self.expires, &mut properties) {
            // Up: what has a second to go has not run out.
            let left = expires.saturating_duration_since(now).as_millis().div_ceil(1000);
            properties.message_expiry_interval = Some(u32::try_from(left).unwrap_or(u32::MAX));
        }
        Publish {
            dup: dup || (self.sent_before && self.qos != QoS::AtMostOnce),
            qos: self.qos,
            pkid,
            retain: self.retain,
            topic: self.topic.clone(),
            payload: self.payload.clone(),
            properties,
        }
    }
}
