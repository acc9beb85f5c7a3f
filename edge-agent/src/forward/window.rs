//! Messages sent and not confirmed, in order.
//!
//! It only counts: what is confirmed at the front may be removed from the buffer, whatever came back behind it.

use std::collections::VecDeque;

use crate::{buffer::Sequence, clock::Stamp};

/// A message on its way.
struct OnItsWay {
    sequence: Sequence,
    stamp: Stamp,
    /// Records of it handed to the producer.
    sent: usize,
    /// Records of it, and dead letters in their place, that are not confirmed.
    open: usize,
    /// All of its records were handed over.
    complete: bool,
}

/// See the module.
#[derive(Default)]
pub struct Window {
    messages: VecDeque<OnItsWay>,
}

impl Window {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True when everything that was sent is confirmed.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Forgets them all: they are sent again.
    pub fn clear(&mut self) {
        self.messages.clear();
    }

    /// Stamp of the oldest.
    pub fn oldest(&self) -> Option<Stamp> {
        self.messages.front().map(|front| front.stamp)
    }

    /// The sequence behind the youngest.
    pub fn end(&self) -> Option<Sequence> {
        self.messages.back().map(|back| back.sequence.next())
    }

    /// The message that is handed over now. Answers how many of its records were before: one that was taken in part,
    /// because the producer's queue was full, is finished and not begun again.
    pub fn begin(&mut self, sequence: Sequence, stamp: Stamp) -> usize {
        if let Some(last) = self.messages.back()
            && last.sequence == sequence
        {
            return last.sent;
        }
        self.messages.push_back(OnItsWay {
            sequence,
            stamp,
            sent: 0,
            open: 0,
            complete: false,
        });
        0
    }

    /// The next record of the message handed over now was taken, or something in its place.
    pub fn sent(&mut self) {
        if let Some(last) = self.messages.back_mut() {
            last.sent += 1;
            last.open += 1;
        }
    }

    /// All records of the message handed over now were taken.
    pub fn complete(&mut self) {
        if let Some(last) = self.messages.back_mut() {
            last.complete = true;
        }
    }

    /// Stamp of a message on its way.
    pub fn stamp(&self, sequence: Sequence) -> Option<Stamp> {
        Some(self.messages.get(self.place(sequence)?)?.stamp)
    }

    /// One record of a message is where it belongs, or given up.
    pub fn confirm(&mut self, sequence: Sequence) {
        if let Some(message) = self
            .place(sequence)
            .and_then(|place| self.messages.get_mut(place))
        {
            message.open = message.open.saturating_sub(1);
        }
    }

    /// Takes away what is confirmed at the front. Answers its end and how many messages it was.
    pub fn release(&mut self) -> Option<(Sequence, u64)> {
        let mut released = None;
        while let Some(front) = self.messages.front()
            && front.complete
            && front.open == 0
        {
            let (_, count) = released.unwrap_or((front.sequence, 0));
            released = Some((front.sequence.next(), count + 1));
            self.messages.pop_front();
        }
        released
    }

    fn place(&self, sequence: Sequence) -> Option<usize> {
        let front = self.messages.front()?;
        // Sequences have no gaps but for unreadable entries, so the place is near the difference.
        let guess = usize::try_from(sequence.0.checked_sub(front.sequence.0)?).ok()?;
        let start = guess.min(self.messages.len() - 1);
        let place = (0..=start)
            .rev()
            .find(|&n| self.messages[n].sequence <= sequence)?;
        (self.messages[place].sequence == sequence).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SegmentId;

    fn stamp(n: u64) -> Stamp {
        Stamp {
            segment: SegmentId(1),
            monotonic_us: n,
            synced: true,
        }
    }

    #[test]
    fn the_front_is_released_when_every_record_of_it_is_confirmed() {
        let mut window = Window::default();
        // Sequence 3 cannot be read; 2 has no records; 4 has two.
        for (n, records) in [(1, 1), (2, 0), (4, 2), (5, 1)] {
            assert_eq!(window.begin(Sequence(n), stamp(n)), 0);
            (0..records).for_each(|_| window.sent());
            window.complete();
        }
        assert_eq!(window.release(), None);
        window.confirm(Sequence(5));
        window.confirm(Sequence(3));
        assert_eq!(window.release(), None);
        window.confirm(Sequence(1));
        assert_eq!(window.release(), Some((Sequence(3), 2)));
        assert_eq!(
            (window.oldest(), window.end()),
            (Some(stamp(4)), Some(Sequence(6)))
        );
        window.confirm(Sequence(4));
        assert_eq!(window.release(), None);
        window.confirm(Sequence(4));
        assert_eq!(window.release(), Some((Sequence(6), 2)));
        assert!(window.is_empty());
    }

    #[test]
    fn what_was_taken_in_part_is_finished_and_not_begun_again() {
        let mut window = Window::default();
        window.begin(Sequence(7), stamp(7));
        window.sent();
        window.confirm(Sequence(7));
        assert_eq!(window.release(), None, "not all of it was handed over");
        assert_eq!(window.begin(Sequence(7), stamp(7)), 1);
        window.sent();
        window.complete();
        assert_eq!((window.len(), window.stamp(Sequence(7))), (1, Some(stamp(7))));
        assert_eq!(window.release(), None);
        window.confirm(Sequence(7));
        assert_eq!(window.release(), Some((Sequence(8), 1)));
    }
}
