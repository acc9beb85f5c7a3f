//! What is missing between what was found of a damaged buffer.
//!
//! Sequences have no gaps, so a hole between two that were found, or between the head and the first, is what was lost.
//! What was lost behind the last one found leaves no hole: of that nothing can be said. Holds ranges, not sequences.

use std::collections::{BTreeMap, HashMap};

use crate::clock::Stamp;

/// A hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Messages missing.
    pub count: u64,
    /// Stamp of the message before it, if there is one.
    pub before: Option<Stamp>,
    /// Stamp of the message behind it.
    pub after: Stamp,
}

/// Messages found, without a hole between them.
#[derive(Clone, Copy, Debug)]
struct Run {
    end: u64,
    first: Stamp,
    last: Stamp,
}

/// See the module.
#[derive(Default)]
pub struct Gaps {
    /// By epoch and first sequence.
    runs: HashMap<u32, BTreeMap<u64, Run>>,
}

impl Gaps {
    /// A message was found.
    pub fn found(&mut self, epoch: u32, sequence: u64, stamp: Stamp) {
        let runs = self.runs.entry(epoch).or_default();
        let before = runs.range_mut(..=sequence).next_back();
        if before.as_ref().is_some_and(|(_, run)| run.end > sequence) {
            return;
        }
        let behind = sequence + 1;
        let next = runs.get(&behind).copied();
        let (end, last) = next.map_or((behind, stamp), |next| (next.end, next.last));
        if next.is_some() {
            runs.remove(&behind);
        }
        match runs.range_mut(..=sequence).next_back() {
            Some((_, run)) if run.end == sequence => {
                run.end = end;
                run.last = last;
            }
            _ => {
                runs.insert(
                    sequence,
                    Run {
                        end,
                        first: stamp,
                        last,
                    },
                );
            }
        }
    }

    /// The holes of a buffer, everything before `head` of which was forwarded.
    pub fn of(&self, epoch: u32, head: u64) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let (mut expected, mut before) = (head, None);
        for (first, run) in self.runs.get(&epoch).into_iter().flatten() {
            if *first > expected {
                gaps.push(Gap {
                    count: first - expected,
                    before,
                    after: run.first,
                });
            }
            expected = run.end.max(expected);
            before = Some(run.last);
        }
        gaps
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

    fn gaps(found: &[u64], head: u64) -> Vec<Gap> {
        let mut gaps = Gaps::default();
        for n in found {
            gaps.found(7, *n, stamp(*n));
        }
        gaps.of(7, head)
    }

    #[test]
    fn holes_are_found_whatever_the_order() {
        let gap = |count, before: Option<u64>, after| Gap {
            count,
            before: before.map(stamp),
            after: stamp(after),
        };
        assert_eq!(gaps(&[], 1), []);
        assert_eq!(gaps(&[1, 2, 3], 1), []);
        assert_eq!(gaps(&[3, 2, 1, 2], 1), []);
        assert_eq!(gaps(&[3, 4], 1), [gap(2, None, 3)]);
        assert_eq!(gaps(&[9, 5, 6, 4], 5), [gap(2, Some(6), 9)]);
        assert_eq!(
            gaps(&[8, 1, 5, 4, 2], 1),
            [gap(1, Some(2), 4), gap(2, Some(5), 8)]
        );
        assert!(Gaps::default().of(8, 1).is_empty());
    }
}
