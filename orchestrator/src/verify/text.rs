//! Shows text from tars, reports and stores in messages: escaped, and of bounded length.

/// Text that is quoted in a message, in characters after escaping.
const QUOTED_CHARACTERS_MAX: usize = 100;

/// A whole message, in characters after escaping. A store's own errors are quoted in it.
const LINE_CHARACTERS_MAX: usize = 400;

/// What stands for the text that is left out.
const LEFT_OUT: &str = "...";

/// The bytes in quotes, with everything but printable ASCII escaped.
pub fn quoted(bytes: &[u8]) -> String {
    let escaped = bytes.escape_ascii().map(char::from);
    format!("\"{}\"", shortened(escaped, QUOTED_CHARACTERS_MAX))
}

/// A message on one line, without the control characters that a terminal would obey.
pub fn one_line(text: &str) -> String {
    let escaped = text.chars().flat_map(|character| {
        // Quotes and backslashes are harmless, and may come from text that is already escaped.
        let (plain, escaped) = match character {
            '"' | '\'' | '\\' => (Some(character), None),
            _ => (None, Some(character.escape_debug())),
        };
        plain.into_iter().chain(escaped.into_iter().flatten())
    });
    shortened(escaped, LINE_CHARACTERS_MAX)
}

fn shortened(mut text: impl Iterator<Item = char>, characters_max: usize) -> String {
    let mut shown: String = text.by_ref().take(characters_max).collect();
    if text.next().is_some() {
        shown.push_str(LEFT_OUT);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_bytes_are_printable_and_short() {
        assert_eq!(quoted(b"00000.txt"), r#""00000.txt""#);
        assert_eq!(
            quoted(b"\x1b[2J\"\xFF\n"),
            r#""\x1b[2J\"\xff\n""#.to_owned()
        );
        let long = quoted(&[0x1b; 5000]);
        assert_eq!(long.len(), QUOTED_CHARACTERS_MAX + 2 + LEFT_OUT.len());
        assert!(long.ends_with("...\""), "{long}");
    }

    #[test]
    fn a_message_keeps_its_letters_and_quotes_and_loses_its_control_characters() {
        let plain = "gs://b/\u{e4}: unknown field `x\\y`, \"quoted\" and 'quoted'";
        assert_eq!(one_line(plain), plain);
        assert_eq!(
            one_line("\u{1b}[2J\r\n\u{202e}"),
            "\\u{1b}[2J\\r\\n\\u{202e}"
        );
        let long = one_line(&"x".repeat(1_000_000));
        assert_eq!(long.len(), LINE_CHARACTERS_MAX + LEFT_OUT.len());
    }
}
