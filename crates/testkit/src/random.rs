//! Numbers for tests that choose: a failure is met again with the same seed.

/// A small generator of numbers, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number, from 0 to `limit` exclusive. `limit` is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// The variable whose number changes all seeds: for a search by hand.
const SEED: &str = "PGSHARD_TEST_SEED";

/// The seed of a test, or another one if a search by hand wants it.
pub fn seed(usual: u64) -> u64 {
    let other = std::env::var(SEED).ok().and_then(|number| number.parse().ok());
    usual.wrapping_add(other.unwrap_or(0_u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
