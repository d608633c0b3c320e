//! Points in time as plain numbers. Nothing here reads a clock: whoever owns one passes `now`.

use std::time::Duration;

/// Monotonic time since the process's start, in nanoseconds. Wraps after 584 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    /// One second.
    pub const SECOND: Self = Self(1_000_000_000);

    /// The tick that this moment falls into.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "ticks wrap and are compared as such")]
    pub const fn tick(self) -> Tick {
        Tick((self.0 / Self::SECOND.0) as u32)
    }

    /// The time since `earlier`, zero if that is not earlier.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl From<Duration> for Nanos {
    /// Saturates at the largest representable time.
    fn from(duration: Duration) -> Self {
        Self(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Nanos> for Duration {
    fn from(nanos: Nanos) -> Self {
        Self::from_nanos(nanos.0)
    }
}

/// Coarse time for ageing, in seconds since the process's start. Wraps after 136 years, and
/// comparisons hold across the wrap for distances below 68.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Tick(pub u32);

impl Tick {
    /// Seconds from this tick to `now`; zero if this tick is later, since the clocks of two
    /// workers need not step together.
    #[inline(always)]
    pub const fn age(self, now: Self) -> u32 {
        let distance = now.0.wrapping_sub(self.0);
        if distance > u32::MAX / 2 { 0 } else { distance }
    }

    /// The tick `seconds` later.
    #[inline(always)]
    pub const fn after(self, seconds: u32) -> Self {
        Self(self.0.wrapping_add(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_fall_into_ticks() {
        assert_eq!(Nanos(999_999_999).tick(), Tick(0));
        assert_eq!(Nanos(67_000_000_000).tick(), Tick(67));
        assert_eq!(Nanos::from(Duration::from_millis(257)), Nanos(257_000_000));
        assert_eq!(Nanos(5).since(Nanos(7)), Nanos(0));
    }

    #[test]
    fn an_age_holds_across_the_wrap_and_is_never_negative() {
        assert_eq!(Tick(u32::MAX).age(Tick(66)), 67);
        assert_eq!(Tick(10).age(Tick(9)), 0);
        assert_eq!(Tick(u32::MAX).after(1), Tick(0));
    }
}
