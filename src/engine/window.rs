//! Decides how many range requests may be in flight.
//!
//! The limit is the job's window, reduced if ranges are large, and for a while if the source
//! throttles.

use crate::limits::{
    EXPECTED_BYTES_MAX, RANGE_BYTES_MAX, WINDOW_THROTTLED_MIN, WINDOW_WIDENED_RANGES,
};

/// The window of one invocation.
///
/// Before the first range arrives, every range is expected to have the largest size allowed, so
/// there are few requests at first. After that, ranges are expected to be a quarter larger than the
/// largest so far.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    requests_max: usize,
    /// `requests_max`, reduced by throttling.
    requests_throttled: usize,
    valid_ranges: u32,
    expected_bytes: usize,
}

impl Window {
    /// A window of at most `requests_max` requests in flight.
    pub fn new(requests_max: u16) -> Self {
        let requests_max = usize::from(requests_max.max(1));
        Self {
            requests_max,
            requests_throttled: requests_max,
            valid_ranges: 0,
            expected_bytes: RANGE_BYTES_MAX,
        }
    }

    /// Halves the window: the source answered 429 or 503.
    pub fn throttle(&mut self) {
        let least = usize::from(WINDOW_THROTTLED_MIN).min(self.requests_max);
        self.requests_throttled = (self.requests_throttled / 2).max(least);
        self.valid_ranges = 0;
    }

    /// Records the size of a valid range in bytes. Only the first range may lower the expected
    /// size. A throttled window widens step by step.
    pub fn observe(&mut self, range_bytes: usize, is_first: bool) {
        self.valid_ranges += 1;
        if self.valid_ranges >= WINDOW_WIDENED_RANGES {
            self.valid_ranges = 0;
            self.requests_throttled = (self.requests_throttled + 1).min(self.requests_max);
        }
        let expected = (range_bytes + range_bytes / 4).clamp(1, RANGE_BYTES_MAX);
        if is_first || expected > self.expected_bytes {
            self.expected_bytes = expected;
        }
    }

    /// How many requests may be in flight now: at least one.
    pub fn requests(&self) -> usize {
        (EXPECTED_BYTES_MAX / self.expected_bytes).clamp(1, self.requests_throttled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::WINDOW_MAX;
    use proptest::prelude::*;

    #[test]
    fn small_ranges_widen_the_window_and_a_large_one_narrows_it() {
        let mut window = Window::new(64);
        assert_eq!(window.requests(), 16);
        window.observe(33_600, true);
        assert_eq!(window.requests(), 64);
        window.observe(RANGE_BYTES_MAX, false);
        assert_eq!(window.requests(), 16);
        window.observe(33_600, false);
        assert_eq!(window.requests(), 16);
    }

    #[test]
    fn a_throttled_window_is_halved_to_its_minimum_and_recovers() {
        let mut window = Window::new(64);
        window.observe(100, true);
        let mut widths = Vec::new();
        for _ in 0..6 {
            window.throttle();
            widths.push(window.requests());
        }
        assert_eq!(widths, [32, 16, 8, 4, 4, 4]);
        for _ in 0..WINDOW_WIDENED_RANGES {
            assert_eq!(window.requests(), 4);
            window.observe(100, false);
        }
        assert_eq!(window.requests(), 5);
        for _ in 0..100 * WINDOW_WIDENED_RANGES {
            window.observe(100, false);
        }
        assert_eq!(window.requests(), 64);
        let mut narrow = Window::new(2);
        narrow.throttle();
        assert_eq!(narrow.requests(), 2);
    }

    proptest! {
        #[test]
        fn the_expected_bytes_in_flight_stay_within_their_limit(
            requests_max in 0..=WINDOW_MAX,
            sizes in proptest::collection::vec(0..=RANGE_BYTES_MAX, 0..50),
        ) {
            let mut window = Window::new(requests_max);
            for (index, size) in sizes.iter().enumerate() {
                window.observe(*size, index == 0);
                let requests = window.requests();
                prop_assert!(requests >= 1 && requests <= usize::from(requests_max.max(1)));
                let largest = sizes[..=index].iter().max().copied().unwrap_or(0);
                prop_assert!(requests == 1 || requests * largest <= EXPECTED_BYTES_MAX);
            }
        }
    }
}
