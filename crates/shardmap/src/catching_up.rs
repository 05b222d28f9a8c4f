//! When to stop catching up with writers and to ask for the locks under which the last changes are seen to.
//!
//! Others wait for the tables meanwhile, so little should be left to do. Writers may be faster than we are; then it has to be done all
//! the same. Whoever keeps a lock from us is left alone for longer each time.

use std::time::Duration;

/// So few changed rows are left to the time when everybody waits.
const FEW: u64 = 500;

/// After so many rounds that find more, the next ones are no better.
const ROUNDS: u32 = 10;

/// How long others are left alone at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another round beside writers.
    Round,
    /// The locks.
    Switch,
}

/// How the catching up goes.
#[derive(Clone, Copy, Debug)]
pub struct CatchingUp {
    rounds: u32,
    pause: Duration,
}

impl Default for CatchingUp {
    fn default() -> Self {
        Self { rounds: 0, pause: PAUSES.0 }
    }
}

impl CatchingUp {
    /// A round has found so many rows; none if it has to be done again.
    pub fn after_round(&mut self, rows: Option<u64>) -> Next {
        self.rounds += 1;
        let is_near = rows.is_some_and(|rows| rows <= FEW);
        if is_near || rows.is_some() && self.rounds >= ROUNDS { Next::Switch } else { Next::Round }
    }

    /// A lock was not to be had: so long a pause, then another round.
    pub fn after_refusal(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSES.1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_are_left_to_the_switch() {
        let mut catching_up = CatchingUp::default();
        assert_eq!(catching_up.after_round(Some(100_000)), Next::Round);
        assert_eq!(catching_up.after_round(Some(FEW)), Next::Switch);
    }

    #[test]
    fn writers_that_are_faster_do_not_put_it_off_for_ever() {
        let mut catching_up = CatchingUp::default();
        let rounds = (1..).find(|_| catching_up.after_round(Some(9999)) == Next::Switch);
        assert_eq!(rounds, Some(ROUNDS));
    }

    #[test]
    fn a_round_that_failed_is_done_again_however_many_there_were() {
        let mut catching_up = CatchingUp::default();
        assert!((0..99).all(|_| catching_up.after_round(None) == Next::Round));
        assert_eq!(catching_up.after_round(Some(0)), Next::Switch);
    }

    #[test]
    fn whoever_holds_a_lock_is_left_alone_for_longer_each_time() {
        let mut catching_up = CatchingUp::default();
        let pauses: Vec<Duration> = (0..9).map(|_| catching_up.after_refusal()).collect();
        assert_eq!(pauses[..2], [PAUSES.0, PAUSES.0 * 2]);
        assert_eq!(pauses[8], PAUSES.1);
    }
}
