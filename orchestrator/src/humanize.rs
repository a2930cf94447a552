//! Formats numbers for people, the same way in every command.

use std::fmt::Display;
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

/// A list of names: the first few, the rest as a count.
pub fn listed(names: impl Iterator<Item = impl Display>) -> String {
    const LISTED_MAX: usize = 16;
    let mut names: Vec<String> = names.map(|name| name.to_string()).collect();
    if let Some(more) = names.len().checked_sub(LISTED_MAX + 1) {
        names.truncate(LISTED_MAX);
        names.push(format!("and {} more", more + 1));
    }
    names.join(" ")
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

/// How long ago something was: `45 s`, `3 h`, `12 days`.
pub fn age(duration: Duration) -> String {
    const HOUR: u64 = 60 * 60;
    match duration.as_secs() {
        seconds @ ..60 => format!("{seconds} s"),
        seconds @ 60..HOUR => format!("{} min", seconds / 60),
        seconds if seconds < 48 * HOUR => format!("{} h", seconds / HOUR),
        seconds => format!("{} days", seconds / (24 * HOUR)),
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
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_600, "1 h"),
            (172_799, "47 h"),
            (172_800, "2 days"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), expected);
        }
        assert_eq!(listed(1..=3), "1 2 3");
        assert_eq!(
            listed(1..=18),
            "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 and 2 more"
        );
        assert_eq!(per_second(100, Duration::from_secs(2)), 50);
        assert_eq!(per_second(100, Duration::ZERO), 0);
    }
}
