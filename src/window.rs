//! How many range requests may be in flight: the job's window, less where ranges are large.
//! Sending them, and holding what they bring, is left to the shell and to `chunk_pool`.

use crate::limits::{EXPECTED_BYTES_MAX, RANGE_BYTES_MAX};

/// The window of one invocation.
///
/// Until a range was seen, each is expected to be as large as a range may be, so the first requests are
/// few; after that, as large as the largest seen and a quarter more.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    requests_max: usize,
    expected_bytes: usize,
}

impl Window {
    /// The window of a job that asks for `requests_max` requests in flight.
    pub fn new(requests_max: u16) -> Self {
        Self {
            requests_max: usize::from(requests_max.max(1)),
            expected_bytes: RANGE_BYTES_MAX,
        }
    }

    /// Takes note of a range's size in bytes. Only the first may lower what is expected.
    pub fn observe(&mut self, range_bytes: usize, is_first: bool) {
        let expected = (range_bytes + range_bytes / 4).clamp(1, RANGE_BYTES_MAX);
        if is_first || expected > self.expected_bytes {
            self.expected_bytes = expected;
        }
    }

    /// Requests that may be in flight now: at least one.
    pub fn requests(&self) -> usize {
        (EXPECTED_BYTES_MAX / self.expected_bytes).clamp(1, self.requests_max)
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
