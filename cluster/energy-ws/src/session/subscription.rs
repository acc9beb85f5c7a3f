//! What a client wants and how far it has got: subscriptions, filters, and the replay after a cursor.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures_util::SinkExt;
use tokio::time::{Instant, sleep, timeout};

use super::Session;
use super::socket::{End, Outcome, feed, say, within_limit};
use crate::hub::Entry;
use crate::position::Positions;
use crate::protocol::{Close, ErrorCode, GapReason, ServerMessage, rfc3339_ms};
use crate::stream::Stream;

/// How long a subscription waits for the window right after the process has started.
const LOADED_WITHIN: Duration = Duration::from_secs(10);

/// How long a cursor beyond the end of a topic may wait for news of that end, which come once a second: another process
/// may have been ahead of this one.
const END_KNOWN_WITHIN: Duration = Duration::from_millis(2_500);

/// How often such a wait looks again.
const END_ASKED_EVERY: Duration = Duration::from_millis(50);

/// What a subscription lets through.
#[derive(Debug)]
pub(super) enum Filter {
    All,
    Devices(HashSet<String>),
}

impl Filter {
    /// An event of no device concerns all devices of its agent: it always passes.
    pub(super) fn lets(&self, device: Option<&str>) -> bool {
        match (self, device) {
            (Filter::All, _) | (Filter::Devices(_), None) => true,
            (Filter::Devices(devices), Some(device)) => devices.contains(device),
        }
    }
}

/// How far the client has got, as its last cursor says.
pub(super) enum Sent {
    Nothing,
    /// The hub's own cursor, in the last message.
    Shared(Arc<Entry>),
    /// A cursor of its own.
    Own(Positions),
}

impl Session<'_> {
    pub(super) async fn unsubscribe(&mut self, streams: &[Stream]) -> Outcome<()> {
        for &stream in streams {
            self.filters[stream as usize] = None;
        }
        if self.filters.iter().all(Option::is_none) {
            self.ring = None;
            self.ahead = None;
        }
        say(self.socket, &ServerMessage::Unsubscribed { streams }).await
    }

    pub(super) async fn subscribe(
        &mut self,
        names: &[String],
        devices: Option<HashSet<String>>,
        since: Option<&str>,
    ) -> Outcome<()> {
        let known = self.known(names).await?;
        let mut streams = Vec::new();
        for &stream in &known {
            if self.may_read(stream) {
                streams.push(stream);
            } else {
                let scopes = stream.any_of().join(" or ");
                let message = format!("scope {scopes} is missing for stream {}", stream.name());
                self.error(ErrorCode::Forbidden, &message).await?;
            }
        }
        if streams.is_empty() {
            let nothing_left = self.filters.iter().all(Option::is_none);
            return if !known.is_empty() && nothing_left {
                Err(End::Close(Close::Forbidden, "no scope for anything asked"))
            } else {
                Ok(())
            };
        }
        let since = match since.map(Positions::from_cursor) {
            None => None,
            Some(Some(cursor)) => Some(cursor),
            Some(None) => {
                return self
                    .error(ErrorCode::InvalidCursor, "since is not a cursor")
                    .await;
            }
        };
        if timeout(LOADED_WITHIN, self.shared.hub.loaded()).await.is_err() {
            let message = "the streams cannot be read yet";
            self.error(ErrorCode::Unavailable, message).await?;
            return Err(End::Close(Close::TryAgain, message));
        }
        // Joined before the positions are taken: what comes between is in both and told apart by offset.
        if self.ring.is_none() {
            let (ring, sequence) = self.shared.hub.listen();
            self.ring = Some(ring);
            self.taken = sequence;
        }
        if let Some((positions, _)) = &since {
            let asked_until = Instant::now() + END_KNOWN_WITHIN;
            while self.shared.hub.is_behind(&streams, positions) && Instant::now() < asked_until {
                sleep(END_ASKED_EVERY).await;
            }
        }
        // A stream the client has already goes on where it is, with another filter, unless a cursor says otherwise.
        let begun: Vec<Stream> = streams
            .iter()
            .copied()
            .filter(|&stream| since.is_some() || self.filters[stream as usize].is_none())
            .collect();
        let (start, sequence) = self.start(&begun, since.as_ref().map(|(positions, _)| positions));
        let cursor = start.to_cursor(
            since
                .as_ref()
                .map_or_else(|| Utc::now().timestamp_millis(), |(_, ms)| *ms),
        );
        say(
            self.socket,
            &ServerMessage::Subscribed {
                streams: &streams,
                cursor: &cursor,
            },
        )
        .await?;
        for &stream in &streams {
            self.filters[stream as usize] = Some(devices.clone().map_or(Filter::All, Filter::Devices));
        }
        let (end, sequence) = match since {
            Some((_, issued_ms)) => self.replay(&streams, start, issued_ms).await?,
            None => (start, sequence),
        };
        self.have(&begun, &end, sequence);
        Ok(())
    }

    /// Where a subscription begins: the asked streams at the cursor or at the present, the others where the client is.
    fn start(&self, streams: &[Stream], since: Option<&Positions>) -> (Positions, u64) {
        let (present, sequence) = self.shared.hub.positions();
        let mut start = match &self.sent {
            Sent::Nothing => since.cloned().unwrap_or_else(|| present.clone()),
            Sent::Shared(entry) => entry.positions(),
            Sent::Own(positions) => positions.clone(),
        };
        for &stream in streams {
            start.take_stream(stream, since.unwrap_or(&present));
        }
        (start, sequence)
    }

    /// Sends what came after `positions`, step by step, and answers where live records go on.
    async fn replay(
        &mut self,
        streams: &[Stream],
        mut positions: Positions,
        issued_ms: i64,
    ) -> Outcome<(Positions, u64)> {
        loop {
            let mut sent = positions.clone();
            let step = self.shared.hub.replay(streams, &mut positions);
            for gap in &step.gaps {
                self.tell(gap.stream, issued_ms, gap.to_ms, gap.reason).await?;
            }
            for entry in step.entries {
                sent.set(entry.place, entry.offset + 1);
                let filter = self.filters[entry.place.stream as usize].as_ref();
                if filter.is_some_and(|filter| filter.lets(entry.device.as_deref())) && self.may_see(&entry) {
                    feed(self.socket, entry.message_at(&sent)).await?;
                    self.shared.metrics.messages_sent.inc();
                }
            }
            within_limit(self.socket.flush()).await?;
            if step.complete {
                return Ok((positions, step.sequence));
            }
        }
    }

    /// Says that records are missing; without an end, up to now.
    pub(super) async fn tell(
        &mut self,
        stream: Stream,
        from_ms: i64,
        to_ms: Option<i64>,
        reason: GapReason,
    ) -> Outcome<()> {
        self.shared.metrics.gaps.inc();
        let to_ms = to_ms.unwrap_or_else(|| Utc::now().timestamp_millis());
        let message = ServerMessage::Gap {
            stream,
            from: rfc3339_ms(from_ms.min(to_ms)),
            to: rfc3339_ms(to_ms),
            reason,
        };
        say(self.socket, &message).await
    }

    /// The client now has `streams` up to `end`; what the ring holds before that is not sent again.
    fn have(&mut self, streams: &[Stream], end: &Positions, sequence: u64) {
        let mut ahead = self.ahead.take().unwrap_or_default();
        for &stream in streams {
            ahead.take_stream(stream, end);
            self.joined[stream as usize] = sequence;
        }
        self.ahead = Some(ahead);
        self.sent = Sent::Own(end.clone());
    }

    pub(super) fn may_read(&self, stream: Stream) -> bool {
        stream.any_of().iter().any(|scope| self.claims.has(scope))
    }

    /// An event tells of its device, so it takes the scope of something the device measures; all of them where that is not
    /// known. An event of no device is for everyone. As homelab-api answers events.
    pub(super) fn may_see(&self, entry: &Entry) -> bool {
        let Some(measures) = &entry.measures else {
            return true;
        };
        let known = Stream::READINGS.map(|stream| measures.includes(stream));
        let readable = Stream::READINGS.map(|stream| self.may_read(stream));
        if known.contains(&true) {
            known
                .iter()
                .zip(readable)
                .any(|(&known, readable)| known && readable)
        } else {
            readable == [true; 4]
        }
    }

    /// The named streams, each once; the first unknown name is answered with an error.
    pub(super) async fn known(&mut self, names: &[String]) -> Outcome<Vec<Stream>> {
        let mut streams = Vec::new();
        let mut unknown = None;
        for name in names {
            match Stream::parse(name) {
                Some(stream) if streams.contains(&stream) => {}
                Some(stream) => streams.push(stream),
                None => unknown = unknown.or(Some(name)),
            }
        }
        if let Some(name) = unknown {
            // One answer however many there are, and no longer than the question is worth.
            let shown: String = name.chars().take(32).collect();
            self.error(
                ErrorCode::UnknownStream,
                &format!("no stream has the name {shown:?}"),
            )
            .await?;
        }
        if names.is_empty() {
            self.error(ErrorCode::Malformed, "streams is empty").await?;
        }
        Ok(streams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_let_through_their_devices_and_events_of_none() {
        let filter = Filter::Devices(HashSet::from(["a".to_owned()]));
        assert!(filter.lets(Some("a")) && !filter.lets(Some("b")) && filter.lets(None));
        assert!(Filter::All.lets(Some("b")));
    }
}
