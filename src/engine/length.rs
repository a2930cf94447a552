//! Plans the tar's length before all of its data have arrived.
//!
//! The estimate depends only on the first ranges in order, not on the window or the host: the same
//! source gives the same length and hence the same bytes.

use crate::engine::tar::{entry_bytes, tar_bytes};
use crate::limits::{LENGTH_SAMPLE_BYTES_MAX, LENGTH_SAMPLE_RANGES_MAX};
use crate::protocol::prefix::RANGES_PER_PREFIX;

/// Standard errors of the sampled mean that the margin covers. The number of hashes in a range is
/// nearly Poisson-distributed, so about one prefix in 10^5 exceeds five. Such a prefix costs a
/// second invocation, not its correctness.
const MARGIN_STANDARD_ERRORS: u128 = 5;

/// The smallest margin: the estimate divided by this.
const MARGIN_FRACTION: u128 = 100;

/// The sizes of a prefix's first ranges.
#[derive(Clone, Copy, Debug, Default)]
pub struct LengthSample {
    ranges: u32,
    data_bytes: u64,
    entries_bytes: u128,
    squares: u128,
}

impl LengthSample {
    /// Adds the next range's size in bytes.
    pub fn add(&mut self, size_bytes: u64) {
        let entry = u128::from(entry_bytes(size_bytes));
        self.ranges += 1;
        self.data_bytes += size_bytes;
        self.entries_bytes += entry;
        self.squares += entry * entry;
    }

    /// Whether the sample is large enough: 32 ranges or 2 MiB of data.
    pub const fn is_complete(&self) -> bool {
        self.ranges >= LENGTH_SAMPLE_RANGES_MAX || self.data_bytes >= LENGTH_SAMPLE_BYTES_MAX
    }

    /// The length to declare, in bytes: the estimate for 4,096 ranges plus a margin of five
    /// standard errors, at least 1 %, rounded up to whole records.
    pub fn content_length(&self) -> u64 {
        let sampled = u128::from(self.ranges.max(1));
        let ranges = u128::from(RANGES_PER_PREFIX);
        let estimate = self.entries_bytes * ranges / sampled;
        // The variance of the sum of 4,096 ranges, estimated from the sample: (4096^2 / n) * s^2.
        let deviations = (sampled * self.squares).saturating_sub(self.entries_bytes.pow(2));
        let sampled_variance = deviations / (sampled * sampled.saturating_sub(1).max(1));
        let standard_error = (ranges * ranges * sampled_variance / sampled).isqrt();
        let margin = (MARGIN_STANDARD_ERRORS * standard_error).max(estimate / MARGIN_FRACTION);
        tar_bytes(u64::try_from(estimate + margin).unwrap_or(u64::MAX / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tar::RECORD_BYTES;
    use crate::limits::{CONTENT_LENGTH_MAX, RANGE_BYTES_MAX};
    use proptest::prelude::*;

    fn sample(sizes: impl Iterator<Item = u64>) -> LengthSample {
        let mut sample = LengthSample::default();
        for size in sizes {
            if sample.is_complete() {
                break;
            }
            sample.add(size);
        }
        sample
    }

    #[test]
    fn ranges_of_equal_size_get_a_margin_of_one_percent() {
        let length = sample(std::iter::repeat(32_000)).content_length();
        let exact = tar_bytes(4096 * entry_bytes(32_000));
        assert!(length >= exact + exact / 101 && length <= exact + exact / 99 + RECORD_BYTES);
    }

    #[test]
    fn large_ranges_end_the_sample_early() {
        let sample = sample(std::iter::repeat(RANGE_BYTES_MAX as u64));
        assert_eq!(sample.ranges, 8);
        assert!(sample.content_length() <= CONTENT_LENGTH_MAX * 102 / 100);
    }

    proptest! {
        #[test]
        fn the_data_fit_if_sizes_are_uniformly_distributed(base in 1_000_u64..60_000, spread in 1_u64..2_000, seed in any::<u64>()) {
            // A deterministic generator, so that the inputs reproduce a failing case.
            let mut state = seed;
            let mut next = move || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                base + (state >> 33) % spread
            };
            let sizes: Vec<u64> = (0..4096).map(|_| next()).collect();
            let exact = tar_bytes(sizes.iter().map(|size| entry_bytes(*size)).sum());
            let length = sample(sizes.iter().copied()).content_length();
            prop_assert_eq!(length % RECORD_BYTES, 0);
            prop_assert!(length >= exact, "{} < {}", length, exact);
        }

        #[test]
        fn no_size_overflows(sizes in proptest::collection::vec(0..=RANGE_BYTES_MAX as u64, 0..40)) {
            prop_assert!(sample(sizes.into_iter()).content_length() < CONTENT_LENGTH_MAX * 4);
        }
    }
}
