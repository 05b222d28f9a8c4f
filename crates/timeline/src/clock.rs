//! A hybrid logical clock: microseconds of the server's own clock, and a count below them.
//!
//! The clock never goes back, and takes over any later time that it hears of. Causes therefore have earlier times than their
//! effects, on however many servers. How far the clock may run ahead of the server's own is bounded, so that nobody
//! can push it.

use std::time::Duration;

/// Bits below a microsecond.
const COUNT_BITS: u32 = 8;

/// A moment on the hybrid clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Time(u64);

impl Time {
    /// Before everything.
    pub const ZERO: Self = Self(0);

    /// How far the clock may be pushed ahead of the server's own: who brings a later time waits.
    pub const AHEAD: Duration = Duration::from_secs(1);

    /// A time so far ahead is nobody's clock.
    pub const FAR: Duration = Duration::from_secs(60);

    /// The time of a server's own clock, in microseconds since some epoch that all servers share.
    pub fn of_micros(micros: i64) -> Self {
        Self(u64::try_from(micros).unwrap_or(0).min(u64::MAX >> (COUNT_BITS + 1)) << COUNT_BITS)
    }

    /// From its number.
    pub fn from_number(number: i64) -> Option<Self> {
        u64::try_from(number).ok().map(Self)
    }

    /// As a number, which is not negative.
    pub fn number(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// The next moment.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The moment before.
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// So much later.
    pub fn plus(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX >> COUNT_BITS);
        Self(self.0.saturating_add(micros << COUNT_BITS))
    }

    /// So much earlier.
    pub fn minus(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX >> COUNT_BITS);
        Self(self.0.saturating_sub(micros << COUNT_BITS))
    }

    /// How much later this is than `other`; zero if it is not.
    pub fn since(self, other: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(other.0) >> COUNT_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_as_a_number() {
        let time = Time::of_micros(850_000_000_000_000);
        assert_eq!(Time::from_number(time.number()), Some(time));
        assert_eq!(Time::from_number(-1), None);
    }

    #[test]
    fn there_is_room_between_two_microseconds() {
        let time = Time::of_micros(7);
        assert!(time < time.next() && time.next() < Time::of_micros(8));
        assert_eq!(time.next().previous(), time);
    }

    #[test]
    fn durations_are_those_of_the_servers_clock() {
        let time = Time::of_micros(1_000_000);
        assert_eq!(time.plus(Duration::from_secs(1)), Time::of_micros(2_000_000));
        assert_eq!(time.plus(Duration::from_secs(1)).since(time), Duration::from_secs(1));
        assert_eq!(time.since(time.next()), Duration::ZERO);
        assert!(Time::of_micros(i64::MAX).plus(Time::FAR).number() > 0);
    }
}
