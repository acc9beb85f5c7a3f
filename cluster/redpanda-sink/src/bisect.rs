//! Finds the rows the database refuses, without writing a batch row by row.
//!
//! Holds no rows and talks to nobody: it says which range to try next and is told what came of it. One bad row in
//! n costs about 2 log2 n statements; n rows, all bad, cost 2n - 1. A large batch is cut into parts of [`PART_ROWS`]
//! first: several bad rows in it would make each half be sent, and be refused, again and again.

use std::ops::Range;

/// Rows of the largest range that is tried. With one bad row in hundreds about half of such ranges are accepted.
pub const PART_ROWS: usize = 250;

/// The ranges still to be tried. Ask [`next`](Self::next) for one and answer with [`refused`](Self::refused), or
/// with nothing when it was accepted.
#[derive(Debug)]
pub struct Bisect {
    open: Vec<Range<usize>>,
}

impl Bisect {
    /// Starts with `len` rows in parts.
    pub fn new(len: usize) -> Self {
        let starts = (0..len).step_by(PART_ROWS).rev();
        Self {
            open: starts.map(|start| start..len.min(start + PART_ROWS)).collect(),
        }
    }

    /// The next range to try, never empty; ranges come in the order of the rows.
    pub fn next(&mut self) -> Option<Range<usize>> {
        self.open.pop()
    }

    /// Tells that `range` was refused. Answers the row at fault when the range is a single row, otherwise the
    /// halves are tried next.
    pub fn refused(&mut self, range: Range<usize>) -> Option<usize> {
        if range.len() == 1 {
            return Some(range.start);
        }
        let middle = range.start + range.len() / 2;
        self.open.push(middle..range.end);
        self.open.push(range.start..middle);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs against an inserter that refuses every range with a bad row in it. Answers accepted rows, refused
    /// rows and the number of statements.
    fn run(len: usize, bad: &[usize]) -> (Vec<usize>, Vec<usize>, usize) {
        let mut bisect = Bisect::new(len);
        let (mut accepted, mut refused, mut statements) = (Vec::new(), Vec::new(), 0);
        while let Some(range) = bisect.next() {
            assert!(!range.is_empty());
            statements += 1;
            if bad.iter().any(|row| range.contains(row)) {
                refused.extend(bisect.refused(range));
            } else {
                accepted.extend(range);
            }
        }
        (accepted, refused, statements)
    }

    #[test]
    fn every_row_is_accepted_or_refused_once_and_in_order() {
        for len in [0_usize, 1, 2, 3, 7, 64, 1000] {
            for bad in [
                vec![],
                vec![0],
                vec![len / 2],
                vec![len.saturating_sub(1)],
                vec![1, 2],
                (0..len).collect(),
            ] {
                let bad: Vec<usize> = bad.into_iter().filter(|&row| row < len).collect();
                let (accepted, refused, _) = run(len, &bad);
                assert_eq!(refused, bad, "{len}");
                let want: Vec<usize> = (0..len).filter(|row| !bad.contains(row)).collect();
                assert_eq!(accepted, want, "{len}");
            }
        }
    }

    #[test]
    fn one_bad_row_costs_a_logarithm() {
        assert_eq!(run(1000, &[]).2, 4);
        assert!(run(1024, &[700]).2 <= 21);
        assert_eq!(run(8, &[0, 1, 2, 3, 4, 5, 6, 7]).2, 15);
    }
}
