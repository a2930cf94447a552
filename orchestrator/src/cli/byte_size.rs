//! Parses sizes in bytes as they are typed: `65536`, `64M`, `64MiB`, `1G`.

/// The units, each 1,024 times the one before.
const UNITS: [char; 4] = ['K', 'M', 'G', 'T'];

/// A size in bytes. Units are binary.
pub(super) fn byte_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = text.get(digits.len()..).unwrap_or_default();
    let number: Option<u64> = digits.parse().ok();
    number
        .zip(factor(unit))
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| "not a size, such as 65536, 64M or 1G".to_owned())
}

fn factor(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_uppercase();
    let unit = unit.strip_suffix('B').unwrap_or(&unit);
    let unit = unit.strip_suffix('I').unwrap_or(unit);
    let mut characters = unit.chars();
    match (characters.next(), characters.next()) {
        (None, _) => Some(1),
        (Some(first), None) => {
            let power = UNITS.iter().position(|unit| *unit == first)? + 1;
            1024_u64.checked_pow(u32::try_from(power).ok()?)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65536),
            ("1b", 1),
            ("64k", 64 << 10),
            ("64M", 64 << 20),
            ("64MB", 64 << 20),
            ("64MiB", 64 << 20),
            ("2g", 2 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(byte_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "M",
            "-1",
            "1.5G",
            "1 M",
            "1MM",
            "1X",
            "17179869184G",
            "+",
        ] {
            assert!(byte_size(text).is_err(), "{text}");
        }
    }
}
