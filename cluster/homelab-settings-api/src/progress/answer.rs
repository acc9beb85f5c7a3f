//! What an agent's answer makes of an open command.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use telemetry::CommandOutcome;

use crate::outbox::MAX_ATTEMPTS;

/// An open row as far as answers change it.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub(super) struct Row {
    pub(super) status: String,
    pub(super) attempts: i16,
    pub(super) next_attempt: Option<i16>,
    pub(super) answered: i16,
    pub(super) sent_at: Option<DateTime<Utc>>,
    pub(super) due_at: DateTime<Utc>,
    pub(super) expires_at: DateTime<Utc>,
    pub(super) waiting_since: Option<DateTime<Utc>>,
    pub(super) published_at: Option<DateTime<Utc>>,
    pub(super) reason: Option<String>,
}

impl Row {
    /// Takes an answer; false where it says nothing new.
    pub(super) fn hear(
        &mut self,
        attempt: i16,
        outcome: CommandOutcome,
        time: DateTime<Utc>,
        now: DateTime<Utc>,
        wait: Duration,
    ) -> bool {
        if attempt < 1 || (attempt > self.attempts && self.next_attempt != Some(attempt)) {
            return false;
        }
        let before = self.clone();
        if self.next_attempt == Some(attempt) {
            // It was sent by a relay that died before it could say so.
            self.attempts = attempt;
            self.next_attempt = None;
            self.status = "published".to_owned();
            self.sent_at = Some(time);
            self.due_at = (now + wait).min(self.expires_at);
        }
        let news = attempt > self.answered;
        self.answered = self.answered.max(attempt);
        let underway = news && attempt == self.attempts && self.next_attempt.is_none();
        match outcome {
            CommandOutcome::Published => {
                self.published_at = self.published_at.or(Some(time));
                if underway {
                    // The device has its time from here on, however long the agent was away.
                    self.reason = None;
                    self.waiting_since = None;
                    self.due_at = (now + wait).min(self.expires_at);
                }
            }
            CommandOutcome::NoSubscriber | CommandOutcome::Refused | CommandOutcome::Expired if !underway => {
            }
            CommandOutcome::Expired => {
                self.status = "expired".to_owned();
                self.next_attempt = None;
                self.reason = Some("its time had passed when it reached the agent".to_owned());
            }
            CommandOutcome::NoSubscriber | CommandOutcome::Refused => {
                self.reason = Some(
                    match outcome {
                        CommandOutcome::Refused => {
                            "the agent refused: it does not know the device or the time"
                        }
                        _ => "the device was not connected",
                    }
                    .to_owned(),
                );
                if attempt < MAX_ATTEMPTS {
                    self.waiting_since = Some(time);
                    self.due_at = self.expires_at;
                }
            }
        }
        *self != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn row(attempts: i16, next_attempt: Option<i16>) -> Row {
        Row {
            status: if attempts == 0 { "pending" } else { "published" }.to_owned(),
            attempts,
            next_attempt,
            answered: 0,
            sent_at: None,
            due_at: at(90),
            expires_at: at(600),
            waiting_since: None,
            published_at: None,
            reason: None,
        }
    }

    const WAIT: Duration = Duration::from_secs(90);

    #[test]
    fn answers_change_a_row_once() {
        let mut one = row(1, None);
        assert!(one.hear(1, CommandOutcome::Published, at(2), at(3), WAIT));
        assert_eq!((one.published_at, one.answered), (Some(at(2)), 1));
        assert!(
            !one.hear(1, CommandOutcome::Published, at(2), at(9), WAIT),
            "again"
        );
        assert!(
            !one.hear(2, CommandOutcome::Published, at(2), at(9), WAIT),
            "never sent"
        );
        assert!(
            !one.hear(0, CommandOutcome::NoSubscriber, at(2), at(9), WAIT),
            "no attempt"
        );
    }

    #[test]
    fn an_answer_proves_that_the_attempt_was_sent() {
        let mut one = row(0, Some(1));
        assert!(one.hear(1, CommandOutcome::Published, at(2), at(3), WAIT));
        assert_eq!(
            (one.status.as_str(), one.attempts, one.next_attempt),
            ("published", 1, None)
        );
        assert_eq!((one.sent_at, one.due_at), (Some(at(2)), at(93)));
    }

    #[test]
    fn a_device_that_is_away_is_waited_for_unless_it_was_the_last_attempt() {
        for outcome in [CommandOutcome::NoSubscriber, CommandOutcome::Refused] {
            let mut one = row(1, None);
            assert!(one.hear(1, outcome, at(2), at(3), WAIT));
            assert_eq!((one.waiting_since, one.due_at), (Some(at(2)), at(600)));
            let mut last = row(3, None);
            assert!(last.hear(3, outcome, at(2), at(3), WAIT));
            assert_eq!(
                (last.waiting_since, last.due_at),
                (None, at(90)),
                "the wait decides"
            );
        }
    }

    #[test]
    fn a_late_answer_to_an_earlier_attempt_changes_no_later_one() {
        let mut one = row(2, None);
        one.answered = 2;
        assert!(!one.hear(1, CommandOutcome::NoSubscriber, at(2), at(3), WAIT));
        assert!(!one.hear(1, CommandOutcome::Expired, at(2), at(3), WAIT));
        let mut woken = row(1, Some(2));
        assert!(woken.hear(1, CommandOutcome::NoSubscriber, at(2), at(3), WAIT));
        assert_eq!(
            (woken.next_attempt, woken.waiting_since, woken.answered),
            (Some(2), None, 1)
        );
    }

    #[test]
    fn an_attempt_that_came_too_late_ends_the_command() {
        let mut one = row(1, None);
        assert!(one.hear(1, CommandOutcome::Expired, at(601), at(602), WAIT));
        assert_eq!(one.status, "expired");
    }
}
