//! One client: who it is, what it wants, and the loop that gives it that.
//!
//! A session owns its socket and nothing else; all clients share the hub's messages. It never waits for a client
//! beyond [`crate::protocol::SEND_LIMIT`], never outlives its token, and says why it ends.

mod allowance;
mod entrance;
mod socket;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use chrono::{DateTime, Utc};
use futures_util::SinkExt;
use service::{Claims, Verifier};
use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::allowance::Allowance;
use self::entrance::{authenticate, verify};
use self::socket::{End, Outcome, TOO_SLOW, feed, say, say_goodbye, text_of, within_limit};
use self::subscription::{Filter, Sent};
use crate::hub::{Break, Entry, Hub, Live};
use crate::metrics::Metrics;
use crate::position::Positions;
use crate::protocol::{
    CLOSE_LIMIT, ClientMessage, Close, ErrorCode, GapReason, IDLE_PERIODS, MAX_CLIENT_BYTES, ServerMessage,
    rfc3339,
};
use crate::seats::{Seat, Seats, UserSeat};
use crate::stream::Stream;

/// What all sessions share.
pub struct Shared {
    /// Records.
    pub hub: Hub,
    /// Tokens.
    pub verifier: Verifier,
    /// Connection limits.
    pub seats: Arc<Seats>,
    /// What is counted.
    pub metrics: Metrics,
    /// Silence after which a client is pinged.
    pub ping_after: Duration,
    /// The process stops.
    pub stop: CancellationToken,
}

/// Serves one client to its end. `token` is the one the handshake carried, if it did.
pub async fn serve(shared: Arc<Shared>, mut socket: WebSocket, token: Option<String>, seat: &Seat) {
    let end = match authenticate(&shared, &mut socket, token).await {
        Ok((claims, user_seat)) => {
            seat.admitted();
            let (expires_at, expiry) = watch::channel(claims.expires_at);
            let mut session = Session {
                shared: &shared,
                socket: &mut socket,
                claims,
                expires_at,
                _seat: user_seat,
                filters: Default::default(),
                ring: None,
                taken: 0,
                ahead: None,
                joined: [0; 5],
                sent: Sent::Nothing,
                heard: Instant::now(),
                allowance: Allowance::new(Instant::now()),
            };
            // Whatever the session waits for, a socket that takes a byte a second among it, these two end it.
            tokio::select! {
                biased;
                end = stop_or_expiry(&shared.stop, expiry) => end,
                Err(end) = session.run() => end,
            }
        }
        Err(end) => end,
    };
    match end {
        End::Gone => {
            shared.metrics.closed("client");
            // The answer to the client's close goes out with one more read.
            let _ = timeout(CLOSE_LIMIT, socket.recv()).await;
        }
        End::Close(close, why) => {
            shared.metrics.closed(&close.code().to_string());
            tracing::debug!(code = close.code(), "a connection is closed: {why}");
            say_goodbye(&mut socket, close, why).await;
        }
    }
}

/// Waits until the process stops or the token has expired, whichever expiry is the latest.
async fn stop_or_expiry(stop: &CancellationToken, mut expiry: watch::Receiver<DateTime<Utc>>) -> End {
    loop {
        let expires_at = *expiry.borrow_and_update();
        tokio::select! {
            () = stop.cancelled() => {
                return End::Close(Close::Stopping, "the server stops, reconnect with the last cursor");
            }
            () = sleep_until(instant_of(expires_at)) => {
                if expires_at <= Utc::now() {
                    return End::Close(Close::Unauthenticated, "the access token has expired");
                }
            }
            // The sender ends with the session, and then this is not asked any more.
            Ok(()) = expiry.changed() => {}
        }
    }
}

struct Session<'a> {
    shared: &'a Shared,
    socket: &'a mut WebSocket,
    claims: Claims,
    /// When the connection ends unless the token is renewed.
    expires_at: watch::Sender<DateTime<Utc>>,
    _seat: UserSeat,
    filters: [Option<Filter>; 5],
    /// Live records; joined with the first subscription.
    ring: Option<broadcast::Receiver<Live>>,
    /// The last place in the hub's order that came from the ring.
    taken: u64,
    /// Next offsets the client already has where those are ahead of the ring; none once the ring has caught up.
    ahead: Option<Positions>,
    /// The place in the hub's order up to which the client has each stream; what the ring holds before it is past.
    joined: [u64; 5],
    sent: Sent,
    /// When the client was last heard.
    heard: Instant,
    allowance: Allowance,
}

impl Session<'_> {
    async fn run(&mut self) -> Result<std::convert::Infallible, End> {
        let mut pinged = false;
        loop {
            let silence = self.heard + self.shared.ping_after * if pinged { IDLE_PERIODS } else { 1 };
            tokio::select! {
                biased;
                message = self.socket.recv() => {
                    self.heard = Instant::now();
                    pinged = false;
                    let text = text_of(message)?;
                    self.allow().await?;
                    if let Some(text) = text {
                        self.hear(&text).await?;
                    }
                }
                received = next(&mut self.ring) => match received {
                    Ok(live) => self.deliver(live).await?,
                    Err(RecvError::Lagged(_)) => self.catch_up().await?,
                    Err(RecvError::Closed) => unreachable!("the hub lives as long as its sessions"),
                },
                () = sleep_until(silence) => {
                    if pinged {
                        return Err(End::Close(Close::Policy, "pings are not answered"));
                    }
                    pinged = true;
                    within_limit(self.socket.send(Message::Ping(bytes::Bytes::new()))).await?;
                }
            }
        }
    }

    /// Sends a record and what else is already there, with one flush for all.
    async fn deliver(&mut self, first: Live) -> Outcome<()> {
        let mut next = Some(first);
        let mut lagged = false;
        let (mut count, mut fed) = (0_u32, 0_u32);
        while let Some(live) = next {
            self.taken = live.sequence();
            match live {
                Live::Record(entry) => fed += self.feed(entry).await?,
                Live::Break(there) => self.break_off(&there).await?,
            }
            count += 1;
            next = None;
            // A long backlog must not keep us from hearing the client.
            if count < 256 {
                match self.ring.as_mut().map(broadcast::Receiver::try_recv) {
                    Some(Ok(live)) => next = Some(live),
                    Some(Err(TryRecvError::Lagged(_))) => lagged = true,
                    Some(Err(TryRecvError::Empty | TryRecvError::Closed)) | None => {}
                }
            }
        }
        self.flush(fed).await?;
        if lagged { self.catch_up().await } else { Ok(()) }
    }

    /// The ring has gone on without this session: what it lacks comes from the windows, as long as they hold it.
    async fn catch_up(&mut self) -> Outcome<()> {
        let streams: Vec<(Stream, u64)> = Stream::ALL
            .into_iter()
            .filter(|&stream| self.filters[stream as usize].is_some())
            .map(|stream| (stream, self.taken.max(self.joined[stream as usize])))
            .collect();
        let missed = self.shared.hub.missed(&streams).ok_or(TOO_SLOW)?;
        self.shared.metrics.catch_ups.inc();
        let mut fed = 0;
        for entry in missed.entries {
            fed += self.feed(entry).await?;
        }
        self.taken = missed.sequence;
        self.ring = Some(missed.ring);
        self.flush(fed).await
    }

    /// Writes a record for this client, if it is; answers how many messages that were.
    async fn feed(&mut self, entry: Arc<Entry>) -> Outcome<u32> {
        let Some(text) = self.message_for(entry) else {
            return Ok(0);
        };
        feed(self.socket, text).await?;
        Ok(1)
    }

    async fn flush(&mut self, fed: u32) -> Outcome<()> {
        if fed > 0 {
            self.shared.metrics.messages_sent.inc_by(fed.into());
            within_limit(self.socket.flush()).await?;
        }
        Ok(())
    }

    /// Records were never read here: the client is told, and goes on with what follows.
    async fn break_off(&mut self, there: &Break) -> Outcome<()> {
        let stream = there.place.stream;
        if there.sequence <= self.joined[stream as usize] {
            return Ok(());
        }
        if there.reason == GapReason::Reset {
            // Offsets begin anew: what the client has of the former ones holds nothing back.
            if let Some(ahead) = &mut self.ahead {
                ahead.set(there.place, 0);
            }
            if let Sent::Own(positions) = &mut self.sent {
                positions.set(there.place, there.next);
            }
        }
        if self.filters[stream as usize].is_none() {
            return Ok(());
        }
        self.tell(stream, there.from_ms, Some(there.to_ms), there.reason)
            .await
    }

    /// The message for this client, or none when it has the record already or does not want it.
    fn message_for(&mut self, entry: Arc<Entry>) -> Option<Utf8Bytes> {
        let place = entry.place;
        let ahead = self.ahead.as_ref();
        if entry.sequence <= self.joined[place.stream as usize]
            || ahead.is_some_and(|ahead| entry.offset < ahead.get(place))
        {
            return None;
        }
        let filter = self.filters[entry.place.stream as usize].as_ref()?;
        if !filter.lets(entry.device.as_deref()) || !self.may_see(&entry) {
            return None;
        }
        if let Some(ahead) = &self.ahead {
            let mut positions = entry.positions();
            if !positions.reaches(ahead) {
                positions.raise_to(ahead);
                let text = entry.message_at(&positions);
                self.sent = Sent::Own(positions);
                return Some(text);
            }
            self.ahead = None;
        }
        let text = entry.message.clone();
        self.sent = Sent::Shared(entry);
        Some(text)
    }

    /// Counts a message of the client; its pings and pongs as well, because each costs an answer or a look.
    async fn allow(&mut self) -> Outcome<()> {
        if self.allowance.take(Instant::now()) {
            return Ok(());
        }
        let message = "too many messages";
        self.error(ErrorCode::Limit, message).await?;
        Err(End::Close(Close::Policy, message))
    }

    async fn hear(&mut self, text: &str) -> Outcome<()> {
        if text.len() > MAX_CLIENT_BYTES {
            return Err(End::Close(Close::TooLarge, "messages have at most 4 KiB"));
        }
        match serde_json::from_str(text) {
            Ok(ClientMessage::Ping) => say(self.socket, &ServerMessage::Pong).await,
            Ok(ClientMessage::Authenticate { token }) => self.renew(&token).await,
            Ok(ClientMessage::Unsubscribe { streams }) => {
                let streams = self.known(&streams).await?;
                self.unsubscribe(&streams).await
            }
            Ok(ClientMessage::Subscribe {
                streams,
                devices,
                since,
            }) => self.subscribe(&streams, devices, since.as_deref()).await,
            Err(_) => {
                let message = "not a message of the protocol";
                self.error(ErrorCode::Malformed, message).await?;
                Err(End::Close(Close::Policy, message))
            }
        }
    }

    /// A fresh token of the same user. Streams it no longer covers end.
    async fn renew(&mut self, token: &str) -> Outcome<()> {
        let claims = verify(self.shared, self.socket, token).await?;
        if claims.subject != self.claims.subject {
            let message = "the token is of another user";
            self.error(ErrorCode::Unauthenticated, message).await?;
            return Err(End::Close(Close::Unauthenticated, message));
        }
        self.claims = claims;
        self.expires_at.send_replace(self.claims.expires_at);
        let expires_at = rfc3339(self.claims.expires_at);
        say(self.socket, &ServerMessage::Authenticated { expires_at }).await?;
        let lost: Vec<Stream> = Stream::ALL
            .into_iter()
            .filter(|&stream| self.filters[stream as usize].is_some() && !self.may_read(stream))
            .collect();
        if lost.is_empty() {
            Ok(())
        } else {
            self.unsubscribe(&lost).await
        }
    }

    async fn error(&mut self, code: ErrorCode, message: &str) -> Outcome<()> {
        say(self.socket, &ServerMessage::Error { code, message }).await
    }
}

/// The next live record; never without a subscription.
async fn next(ring: &mut Option<broadcast::Receiver<Live>>) -> Result<Live, RecvError> {
    match ring {
        Some(ring) => ring.recv().await,
        None => std::future::pending().await,
    }
}

/// The instant at which a wall-clock time comes, as seen now; the past is now. At most a day ahead, then it is looked
/// at again: timers end somewhere, and so do tokens.
fn instant_of(time: DateTime<Utc>) -> Instant {
    const DAY: Duration = Duration::from_secs(86_400);
    let left = (time - Utc::now()).to_std().unwrap_or(Duration::ZERO);
    Instant::now() + left.min(DAY)
}
