//! Formats numbers for people, the same way in every command.

use std::time::Duration;

/// An integer with commas: `1,048,576`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of prefixes: `1 prefix`, `256 prefixes`.
pub fn prefixes(count: usize) -> String {
    match count {
        1 => "1 prefix".to_owned(),
        count => format!("{count} prefixes"),
    }
}

/// Bytes of data in decimal units, as networks and stores count them: `137.6 MB`.
pub fn data(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes < 1e6 {
        format!("{:.1} kB", bytes / 1e3)
    } else if bytes < 1e9 {
        format!("{:.1} MB", bytes / 1e6)
    } else {
        format!("{:.2} GB", bytes / 1e9)
    }
}

/// Bytes of memory in binary units, as limits are given: `3.1 MiB`.
pub fn memory(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

/// A duration: `0.42 s`, `3 min 5 s`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 60.0 {
        format!("{seconds:.2} s")
    } else {
        let whole = duration.as_secs();
        match (whole / 60, whole % 60) {
            (minutes, 0) => format!("{minutes} min"),
            (minutes, seconds) => format!("{minutes} min {seconds} s"),
        }
    }
}

/// A rate per second; 0 if no time has passed.
pub fn per_second(count: u64, duration: Duration) -> u64 {
    let seconds = duration.as_secs_f64();
    if seconds > 0.0 {
        (count as f64 / seconds) as u64
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_formatted_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_048_576), "1,048,576");
        assert_eq!(prefixes(1), "1 prefix");
        assert_eq!(prefixes(256), "256 prefixes");
        assert_eq!(data(32_000), "32.0 kB");
        assert_eq!(data(137_600_000), "137.6 MB");
        assert_eq!(data(33_000_000_000), "33.00 GB");
        assert_eq!(memory(8 * 1024 * 1024), "8.0 MiB");
        assert_eq!(duration(Duration::from_millis(420)), "0.42 s");
        assert_eq!(duration(Duration::from_secs(185)), "3 min 5 s");
        assert_eq!(duration(Duration::from_secs(600)), "10 min");
        assert_eq!(per_second(100, Duration::from_secs(2)), 50);
        assert_eq!(per_second(100, Duration::ZERO), 0);
    }
}
