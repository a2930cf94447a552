//! How many range requests may be in flight: the job's window, less where ranges are large, and less for a while
//! where the source asks for it.
//! Sending them, and holding what they bring, is left to the shell and to `chunk_pool`.

use crate::limits::{
    EXPECTED_BYTES_MAX, RANGE_BYTES_MAX, WINDOW_THROTTLED_MIN, WINDOW_WIDENED_RANGES,
};

/// The window of one invocation.
///
/// Until a range was seen, each is expected to be as large as a range may be, so the first requests are
/// few; after that, as large as the largest seen and a quarter more.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    requests_max: usize,
    /// What the source bears, as far as is known; at most `requests_max`.
    requests_borne: usize,
    good_ranges: u32,
    expected_bytes: usize,
}

impl Window {
    /// The window of a job that asks for `requests_max` requests in flight.
    pub fn new(requests_max: u16) -> Self {
        let requests_max = usize::from(requests_max.max(1));
        Self {
            requests_max,
            requests_borne: requests_max,
            good_ranges: 0,
            expected_bytes: RANGE_BYTES_MAX,
        }
    }

    /// Halves the window: the source said that it is asked too much.
    pub fn throttle(&mut self) {
        let least = usize::from(WINDOW_THROTTLED_MIN).min(self.requests_max);
        self.requests_borne = (self.requests_borne / 2).max(least);
        self.good_ranges = 0;
    }

    /// Takes note of a good range and its size in bytes. Only the first may lower what is expected. A throttled
    /// window is widened again, bit by bit.
    pub fn observe(&mut self, range_bytes: usize, is_first: bool) {
        self.good_ranges += 1;
        if self.good_ranges >= WINDOW_WIDENED_RANGES {
            self.good_ranges = 0;
            self.requests_borne = (self.requests_borne + 1).min(self.requests_max);
        }
        let expected = (range_bytes + range_bytes / 4).clamp(1, RANGE_BYTES_MAX);
        if is_first || expected > self.expected_bytes {
            self.expected_bytes = expected;
        }
    }

    /// Requests that may be in flight now: at least one.
    pub fn requests(&self) -> usize {
        (EXPECTED_BYTES_MAX / self.expected_bytes).clamp(1, self.requests_borne)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::WINDOW_MAX;
    use proptest::prelude::*;

    #[test]
    fn the_window_opens_when_ranges_turn_out_small_and_shrinks_when_one_is_large() {
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
    fn a_throttled_window_is_halved_to_its_least_and_widens_again_to_what_was_asked() {
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
        fn what_is_expected_in_flight_never_passes_its_bound(
            asked in 0..=WINDOW_MAX,
            sizes in proptest::collection::vec(0..=RANGE_BYTES_MAX, 0..50),
        ) {
            let mut window = Window::new(asked);
            for (index, size) in sizes.iter().enumerate() {
                window.observe(*size, index == 0);
                let requests = window.requests();
                prop_assert!(requests >= 1 && requests <= usize::from(asked.max(1)));
                let largest = sizes[..=index].iter().max().copied().unwrap_or(0);
                prop_assert!(requests == 1 || requests * largest <= EXPECTED_BYTES_MAX);
            }
        }
    }
}
