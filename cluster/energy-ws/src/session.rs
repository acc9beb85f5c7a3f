//! One client: who it is, what it wants, and the loop that gives it that.
//!
//! A session owns its socket and nothing else; all clients share the hub's messages. It never waits for a client
//! beyond [`SEND_LIMIT`], never outlives its token, and says why it ends.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use chrono::{DateTime, Utc};
use futures_util::SinkExt;
use service::{AuthError, Claims, Verifier};
use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::hub::{Break, Entry, Hub, Live};
use crate::metrics::Metrics;
use crate::position::Positions;
use crate::protocol::{
    AUTHENTICATE_WITHIN, BURST_MESSAGES, CLOSE_LIMIT, ClientMessage, Close, ErrorCode, GapReason,
    IDLE_PERIODS, MAX_CLIENT_BYTES, MESSAGES_PER_SECOND, SEND_LIMIT, ServerMessage, rfc3339, rfc3339_ms,
};
use crate::seats::{Seats, UserSeat};
use crate::stream::Stream;

/// How long a subscription waits for the window right after the process has started.
const LOADED_WITHIN: Duration = Duration::from_secs(10);

/// How long a cursor beyond the end of a topic may wait for news of that end, which come once a second: another process
/// may have been ahead of this one.
const END_KNOWN_WITHIN: Duration = Duration::from_millis(2_500);
/// How often such a wait looks again.
const END_ASKED_EVERY: Duration = Duration::from_millis(50);

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

/// Why a session ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The client went away.
    Gone,
    /// We close, with a reason for a person.
    Close(Close, &'static str),
}

type Outcome<T> = Result<T, End>;

/// Serves one client to its end. `token` is the one the handshake carried, if it did.
pub async fn serve(shared: Arc<Shared>, mut socket: WebSocket, token: Option<String>) {
    let end = match authenticate(&shared, &mut socket, token).await {
        Ok((claims, seat)) => {
            let (expires_at, expiry) = watch::channel(claims.expires_at);
            let mut session = Session {
                shared: &shared,
                socket: &mut socket,
                claims,
                expires_at,
                _seat: seat,
                filters: Default::default(),
                ring: None,
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

/// Sends the close and waits a moment for the answer, so that the client reads it before the connection is gone.
async fn say_goodbye(socket: &mut WebSocket, close: Close, why: &'static str) {
    let frame = CloseFrame {
        code: close.code(),
        reason: Utf8Bytes::from_static(why),
    };
    let goodbye = async {
        if socket.send(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        if close == Close::TooLarge {
            // The rest of what was too large is not read: that would be the memory the limit is there to save.
            std::future::pending::<()>().await;
        }
        while let Some(Ok(message)) = socket.recv().await {
            if matches!(message, Message::Close(_)) {
                break;
            }
        }
    };
    // A client that does not answer is dropped with the socket.
    let _ = timeout(CLOSE_LIMIT, goodbye).await;
}

/// Verifies the handshake's token, or the one the first message brings in time.
async fn authenticate(
    shared: &Shared,
    socket: &mut WebSocket,
    token: Option<String>,
) -> Outcome<(Claims, UserSeat)> {
    const LATE: End = End::Close(Close::Unauthenticated, "not authenticated in time");
    let claims = timeout(AUTHENTICATE_WITHIN, async {
        let token = match token {
            Some(token) => token,
            None => first_token(shared, socket).await?,
        };
        verify(shared, socket, &token).await
    })
    .await
    .unwrap_or(Err(LATE))?;
    let Some(seat) = shared.seats.user(&claims.subject) else {
        let message = "too many connections of this user";
        say(
            socket,
            &ServerMessage::Error {
                code: ErrorCode::Limit,
                message,
            },
        )
        .await?;
        return Err(End::Close(Close::Policy, message));
    };
    say(
        socket,
        &ServerMessage::Authenticated {
            expires_at: rfc3339(claims.expires_at),
        },
    )
    .await?;
    Ok((claims, seat))
}

async fn first_token(shared: &Shared, socket: &mut WebSocket) -> Outcome<String> {
    loop {
        let message = tokio::select! {
            message = socket.recv() => message,
            () = shared.stop.cancelled() => return Err(End::Close(Close::Stopping, "the server stops")),
        };
        let Some(text) = text_of(message)? else { continue };
        return match serde_json::from_str(&text) {
            Ok(ClientMessage::Authenticate { token }) => Ok(token),
            _ => {
                let message = "the first message must be authenticate";
                say(
                    socket,
                    &ServerMessage::Error {
                        code: ErrorCode::Unauthenticated,
                        message,
                    },
                )
                .await?;
                Err(End::Close(Close::Unauthenticated, message))
            }
        };
    }
}

async fn verify(shared: &Shared, socket: &mut WebSocket, token: &str) -> Outcome<Claims> {
    let outcome = shared.verifier.verify(token).await.and_then(|claims| {
        // The verifier allows for clocks that differ; a connection does not begin after its own end.
        if claims.expires_at <= Utc::now() {
            Err(AuthError::Expired)
        } else {
            Ok(claims)
        }
    });
    match outcome {
        Ok(claims) => Ok(claims),
        Err(error) => {
            shared.metrics.refused_tokens.inc();
            let (code, close) = match error {
                AuthError::Unavailable => (ErrorCode::Unavailable, Close::TryAgain),
                _ => (ErrorCode::Unauthenticated, Close::Unauthenticated),
            };
            say(
                socket,
                &ServerMessage::Error {
                    code,
                    message: &error.to_string(),
                },
            )
            .await?;
            Err(End::Close(close, "the access token is not accepted"))
        }
    }
}

/// The text of a message from the client; none for a control frame. An end or a broken limit ends the session.
fn text_of(message: Option<Result<Message, axum::Error>>) -> Outcome<Option<Utf8Bytes>> {
    match message {
        None | Some(Ok(Message::Close(_))) => Err(End::Gone),
        Some(Ok(Message::Text(text))) => Ok(Some(text)),
        Some(Ok(Message::Binary(_))) => Err(End::Close(
            Close::Policy,
            "binary messages are not part of the protocol",
        )),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
        Some(Err(error)) => Err(end_of(&error.to_string())),
    }
}

/// What a failed read means. axum hides the kind of the error behind its text; a test holds the texts still.
fn end_of(error: &str) -> End {
    if error.contains("Space limit exceeded") {
        End::Close(Close::TooLarge, "messages have at most 4 KiB")
    } else if error.contains("WebSocket protocol error: Connection reset") {
        End::Gone
    } else if error.contains("WebSocket protocol error") || error.contains("UTF-8") {
        End::Close(Close::Policy, "not a WebSocket message")
    } else {
        End::Gone
    }
}

/// Sends one message within the limit.
async fn say(socket: &mut WebSocket, message: &ServerMessage<'_>) -> Outcome<()> {
    send(socket, message.to_json().into()).await
}

async fn send(socket: &mut WebSocket, text: Utf8Bytes) -> Outcome<()> {
    within_limit(socket.send(Message::Text(text))).await
}

async fn within_limit(sending: impl Future<Output = Result<(), axum::Error>>) -> Outcome<()> {
    match timeout(SEND_LIMIT, sending).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(TOO_SLOW),
    }
}

const TOO_SLOW: End = End::Close(Close::TryAgain, "too slow, reconnect with the last cursor");

/// What a subscription lets through.
#[derive(Debug)]
enum Filter {
    All,
    Devices(HashSet<String>),
}

impl Filter {
    /// An event of no device concerns all devices of its agent: it always passes.
    fn lets(&self, device: Option<&str>) -> bool {
        match (self, device) {
            (Filter::All, _) | (Filter::Devices(_), None) => true,
            (Filter::Devices(devices), Some(device)) => devices.contains(device),
        }
    }
}

/// How far the client has got, as its last cursor says.
enum Sent {
    Nothing,
    /// The hub's own cursor, in the last message.
    Shared(Arc<Entry>),
    /// A cursor of its own.
    Own(Positions),
}

/// Client messages still allowed: a bucket that fills with time.
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self {
            left: f64::from(BURST_MESSAGES),
            at: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let refill = now.duration_since(self.at).as_secs_f64() * f64::from(MESSAGES_PER_SECOND);
        self.left = (self.left + refill).min(f64::from(BURST_MESSAGES));
        self.at = now;
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
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
                    Err(RecvError::Lagged(missed)) => {
                        tracing::debug!(missed, "a client was too slow");
                        return Err(TOO_SLOW);
                    }
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
        let (mut taken, mut fed) = (0_u32, 0_u32);
        while let Some(live) = next {
            match live {
                Live::Record(entry) => {
                    if let Some(text) = self.message_for(&entry) {
                        within_limit(self.socket.feed(Message::Text(text))).await?;
                        fed += 1;
                    }
                }
                Live::Break(there) => self.break_off(&there).await?,
            }
            taken += 1;
            // A long backlog must not keep us from hearing the client.
            next = if taken < 256 { self.ready()? } else { None };
        }
        if fed > 0 {
            self.shared.metrics.messages_sent.inc_by(fed.into());
            within_limit(self.socket.flush()).await?;
        }
        Ok(())
    }

    fn ready(&mut self) -> Outcome<Option<Live>> {
        match self.ring.as_mut().map(broadcast::Receiver::try_recv) {
            Some(Ok(live)) => Ok(Some(live)),
            Some(Err(TryRecvError::Lagged(_))) => Err(TOO_SLOW),
            Some(Err(TryRecvError::Empty | TryRecvError::Closed)) | None => Ok(None),
        }
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
    fn message_for(&mut self, entry: &Arc<Entry>) -> Option<Utf8Bytes> {
        let place = entry.place;
        let ahead = self.ahead.as_ref();
        if entry.sequence <= self.joined[place.stream as usize]
            || ahead.is_some_and(|ahead| entry.offset < ahead.get(place))
        {
            return None;
        }
        let filter = self.filters[entry.place.stream as usize].as_ref()?;
        if !filter.lets(entry.device.as_deref()) {
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
        self.sent = Sent::Shared(entry.clone());
        Some(entry.message.clone())
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

    async fn unsubscribe(&mut self, streams: &[Stream]) -> Outcome<()> {
        for &stream in streams {
            self.filters[stream as usize] = None;
        }
        if self.filters.iter().all(Option::is_none) {
            self.ring = None;
            self.ahead = None;
        }
        say(self.socket, &ServerMessage::Unsubscribed { streams }).await
    }

    async fn subscribe(
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
            self.ring = Some(self.shared.hub.listen());
        }
        if let Some((positions, _)) = &since {
            let asked_until = Instant::now() + END_KNOWN_WITHIN;
            while self.shared.hub.is_behind(&streams, positions) && Instant::now() < asked_until {
                sleep(END_ASKED_EVERY).await;
            }
        }
        let (start, sequence) = self.start(&streams, since.as_ref().map(|(positions, _)| positions));
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
        self.have(&streams, &end, sequence);
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
                if filter.is_some_and(|filter| filter.lets(entry.device.as_deref())) {
                    within_limit(self.socket.feed(Message::Text(entry.message_at(&sent)))).await?;
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
    async fn tell(
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

    fn may_read(&self, stream: Stream) -> bool {
        stream.any_of().iter().any(|scope| self.claims.has(scope))
    }

    /// The named streams, each once; the first unknown name is answered with an error.
    async fn known(&mut self, names: &[String]) -> Outcome<Vec<Stream>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowance_is_a_burst_and_then_a_rate() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert!((0..BURST_MESSAGES).all(|_| allowance.take(start)));
        assert!(!allowance.take(start));
        let later = start + Duration::from_secs(1);
        assert!((0..MESSAGES_PER_SECOND).all(|_| allowance.take(later)));
        assert!(!allowance.take(later));
    }

    #[test]
    fn filters_let_through_their_devices_and_events_of_none() {
        let filter = Filter::Devices(HashSet::from(["a".to_owned()]));
        assert!(filter.lets(Some("a")) && !filter.lets(Some("b")) && filter.lets(None));
        assert!(Filter::All.lets(Some("b")));
    }
}
