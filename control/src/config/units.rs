//! Values with a unit, as people write them: `"30s"`, `"64KiB"`, `"1Gbps"`, `"1000pps"`.
//!
//! Each type reads what it prints: `value.to_string().parse()` is the value again. Numbers are
//! whole; a fraction is written in the next smaller unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// A text that is not a number with a unit of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadUnit {
    /// Nothing that starts with a digit.
    #[error("`{text}` does not start with a number")]
    NoNumber {
        /// The whole text.
        text: String,
    },
    /// A number alone.
    #[error("`{text}` has no unit; the units are {units}")]
    NoUnit {
        /// The whole text.
        text: String,
        /// The units of this kind of value.
        units: &'static str,
    },
    /// A number followed by something else.
    #[error("`{unit}` in `{text}` is not a unit; the units are {units}")]
    UnknownUnit {
        /// The whole text.
        text: String,
        /// What stands where the unit should be.
        unit: String,
        /// The units of this kind of value.
        units: &'static str,
    },
    /// A decimal point.
    #[error("`{text}` has a fraction; write a whole number of a smaller unit")]
    Fraction {
        /// The whole text.
        text: String,
    },
    /// A part of a duration that does not get smaller, as in `5m2h`.
    #[error("the parts of `{text}` do not go from larger to smaller units")]
    Order {
        /// The whole text.
        text: String,
    },
    /// More than 64 bits hold.
    #[error("`{text}` is too large")]
    TooLarge {
        /// The whole text.
        text: String,
    },
}

/// A unit's name and how many of the smallest it is.
type Unit = (&'static str, u64);

/// Largest first, so that printing takes the first that fits.
const TIMES: [Unit; 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];
const TIME_NAMES: &str = "d, h, m, s, ms, us and ns";

const SIZES: [Unit; 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];
const SIZE_NAMES: &str = "B, KiB, MiB, GiB, TiB, kB, MB, GB and TB";

const BIT_RATES: [Unit; 5] = [
    ("Tbps", 1_000_000_000_000),
    ("Gbps", 1_000_000_000),
    ("Mbps", 1_000_000),
    ("kbps", 1_000),
    ("bps", 1),
];
const BIT_RATE_NAMES: &str = "bps, kbps, Mbps, Gbps and Tbps";

const PACKET_RATES: [Unit; 3] = [("Mpps", 1_000_000), ("kpps", 1_000), ("pps", 1)];
const PACKET_RATE_NAMES: &str = "pps, kpps and Mpps";

/// A length of time, to the nanosecond, up to 584 years: `"30s"`, `"2h11m"`, `"500ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u64);

impl Interval {
    /// An interval of whole seconds; one that 64 bits of nanoseconds can't hold is cut to that.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// The same as the standard library's type.
    pub const fn duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

impl FromStr for Interval {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let (mut total, mut rest, mut previous) = (0_u64, text, u64::MAX);
        loop {
            let (value, scale, after) = part(text, rest, &TIMES, TIME_NAMES)?;
            if scale >= previous {
                return Err(BadUnit::Order { text: text.to_owned() });
            }
            total = total.checked_add(value).ok_or_else(|| too_large(text))?;
            (rest, previous) = (after, scale);
            if rest.is_empty() {
                return Ok(Self(total));
            }
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (name, scale) in TIMES {
            if rest >= scale {
                write!(f, "{}{name}", rest / scale)?;
                rest %= scale;
            }
        }
        Ok(())
    }
}

macro_rules! one_unit {
    ($(#[$doc:meta])* $name:ident, $accessor:ident, $units:ident, $names:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The number in the smallest unit.
            pub const fn $accessor(self) -> u64 {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = BadUnit;

            fn from_str(text: &str) -> Result<Self, BadUnit> {
                let (value, _, rest) = part(text, text, &$units, $names)?;
                rest.is_empty().then_some(Self(value)).ok_or_else(|| unknown(text, rest, $names))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                shortest(self.0, &$units, f)
            }
        }
    };
}

one_unit!(
    /// An amount of memory in bytes: `"64KiB"`, `"512MiB"`.
    Size, bytes, SIZES, SIZE_NAMES
);
one_unit!(
    /// A rate in bits per second: `"1Gbps"`.
    BitRate, bits_per_second, BIT_RATES, BIT_RATE_NAMES
);
one_unit!(
    /// A rate in packets per second: `"1000pps"`.
    PacketRate, packets_per_second, PACKET_RATES, PACKET_RATE_NAMES
);

/// Reads one number with its unit from the start of `rest`: its value in the smallest unit, the
/// unit's scale and what follows.
fn part<'t>(
    text: &str,
    rest: &'t str,
    units: &[Unit],
    names: &'static str,
) -> Result<(u64, u64, &'t str), BadUnit> {
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, rest) = rest.split_at(digits);
    if number.is_empty() {
        return Err(BadUnit::NoNumber { text: text.to_owned() });
    }
    if rest.starts_with(['.', ',']) {
        return Err(BadUnit::Fraction { text: text.to_owned() });
    }
    let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    if unit.is_empty() {
        return Err(BadUnit::NoUnit { text: text.to_owned(), units: names });
    }
    let scale = units.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    let scale = scale.ok_or_else(|| unknown(text, unit, names))?;
    let value = number.parse::<u64>().ok().and_then(|n| n.checked_mul(scale));
    Ok((value.ok_or_else(|| too_large(text))?, scale, rest))
}

fn unknown(text: &str, unit: &str, units: &'static str) -> BadUnit {
    BadUnit::UnknownUnit { text: text.to_owned(), unit: unit.to_owned(), units }
}

fn too_large(text: &str) -> BadUnit {
    BadUnit::TooLarge { text: text.to_owned() }
}

/// Prints in the unit that gives the smallest whole number.
fn shortest(value: u64, units: &[Unit], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let fits = |(_, scale): &&Unit| value != 0 && value.is_multiple_of(*scale);
    let (name, scale) = units.iter().find(fits).or(units.last()).copied().unwrap_or(("", 1));
    write!(f, "{}{name}", value / scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_have_several_parts() {
        let seconds = |text: &str| text.parse::<Interval>().map(|i| i.duration().as_secs());
        assert_eq!(seconds("2h11m"), Ok(7_860));
        assert_eq!(seconds("300s"), Ok(300));
        assert_eq!("500ms".parse::<Interval>().unwrap().duration(), Duration::from_millis(500));
        assert_eq!("300s".parse::<Interval>().unwrap().to_string(), "5m");
        assert!(matches!(seconds("5m2h"), Err(BadUnit::Order { .. })));
        assert!(matches!(seconds("1h1h"), Err(BadUnit::Order { .. })));
    }

    #[test]
    fn sizes_and_rates_print_shortest() {
        assert_eq!("512MiB".parse::<Size>(), Ok(Size(512 << 20)));
        assert_eq!(Size(65_536).to_string(), "64KiB");
        assert_eq!(Size(64_000).to_string(), "64kB");
        assert_eq!("1Gbps".parse::<BitRate>().unwrap().bits_per_second(), 1_000_000_000);
        assert_eq!("1000pps".parse::<PacketRate>().unwrap().to_string(), "1kpps");
    }

    #[test]
    fn each_mistake_has_its_own_error() {
        let error = |text: &str| text.parse::<Size>().unwrap_err();
        assert!(matches!(error(""), BadUnit::NoNumber { .. }));
        assert!(matches!(error("-1B"), BadUnit::NoNumber { .. }));
        assert!(matches!(error("64"), BadUnit::NoUnit { .. }));
        assert!(matches!(error("1.5GiB"), BadUnit::Fraction { .. }));
        assert!(matches!(error("1GiB2"), BadUnit::UnknownUnit { .. }));
        assert!(matches!(error("99999999999TiB"), BadUnit::TooLarge { .. }));
        assert!(matches!("1gbps".parse::<BitRate>(), Err(BadUnit::UnknownUnit { .. })));
        let most = format!("{}ns", u64::MAX);
        assert!(most.parse::<Interval>().is_ok());
        assert!(matches!(format!("1s{most}").parse::<Interval>(), Err(BadUnit::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(value: u64) {
            prop_assert_eq!(Interval(value).to_string().parse(), Ok(Interval(value)));
            prop_assert_eq!(Size(value).to_string().parse(), Ok(Size(value)));
            prop_assert_eq!(BitRate(value).to_string().parse(), Ok(BitRate(value)));
            prop_assert_eq!(PacketRate(value).to_string().parse(), Ok(PacketRate(value)));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = (text.parse::<Interval>(), text.parse::<Size>(), text.parse::<PacketRate>());
        }
    }
}
