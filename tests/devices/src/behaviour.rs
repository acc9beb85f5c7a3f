//! What a device does with what it is told.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a heat pump does with writes, and a plug with commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Does it, and reports the value in its next message.
    Applies,
    /// Ignores it without a word.
    Ignores,
    /// Does it so much later.
    Late(Duration),
    /// Is not connected; commands never reach it.
    Offline,
    /// Does something else: a heat pump takes one more than was wanted, a plug the opposite.
    Other,
}

/// Waits until the device is to be online; false when it is to stop.
pub async fn until_online(behaviour: &mut watch::Receiver<Behaviour>, stop: &CancellationToken) -> bool {
    let online = behaviour.wait_for(|now| *now != Behaviour::Offline);
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        // Where nobody is left who could bring it online, the stop is waited for.
        Ok(_) = online => true,
    }
}

/// What was told and is done later.
#[derive(Debug)]
pub struct Late<T>(Vec<(Instant, T)>);

impl<T> Default for Late<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Late<T> {
    /// Keeps what is to be done so much later.
    pub fn push(&mut self, by: Duration, what: T) {
        self.0.push((Instant::now() + by, what));
    }

    /// Takes what is to be done by now, in the order it was told.
    pub fn due(&mut self) -> Vec<T> {
        let now = Instant::now();
        self.0
            .extract_if(.., |(due, _)| *due <= now)
            .map(|(_, what)| what)
            .collect()
    }
}
