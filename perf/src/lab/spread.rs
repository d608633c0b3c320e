//! Repeated measurements in three numbers.

use serde::Serialize;

/// The median of some repeats, and how far they lie apart.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Spread {
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
}

impl Spread {
    /// Of at least one value; `None` of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let below = if sorted.len().is_multiple_of(2) { middle - 1 } else { middle };
        Some(Self { median: f64::midpoint(sorted[below], sorted[middle]), low, high })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_and_even_numbers_of_repeats() {
        assert_eq!(Spread::of([]), None);
        let three = Spread { median: 2.0, low: 1.0, high: 9.0 };
        assert_eq!(Spread::of([9.0, 1.0, 2.0]), Some(three));
        let two = Spread { median: 2.0, low: 1.0, high: 3.0 };
        assert_eq!(Spread::of([3.0, 1.0]), Some(two));
    }
}
