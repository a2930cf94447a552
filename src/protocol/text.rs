//! Makes text that came from elsewhere safe to show: a terminal, a log or a person takes it for one
//! line of plain text, and for nothing else.

use std::borrow::Cow;

/// What ends a text that was cut.
const CUT_MARK: char = '…';

/// Whether a character is more than text: it moves a cursor, ends a line, or reorders the line.
///
/// These are the control characters (C0, DEL, C1), the line and paragraph separators, and the
/// overrides and isolates of bidirectional text.
pub fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
        )
}

/// The text with every unsafe character escaped, as in `\u{1b}`.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        push_escaped(&mut shown, character);
    }
    Cow::Owned(shown)
}

/// The escaped text, cut to at most `chars_max` characters. A text that was cut ends in `…`.
pub fn escaped_within(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    let mut chars = 0;
    // Where the text ends if it is cut: the mark needs room, and an escape is not split.
    let mut cut = 0;
    for character in text.chars() {
        let before = shown.len();
        push_escaped(&mut shown, character);
        chars += match shown.len() - before {
            bytes if is_unsafe(character) => bytes,
            _ => 1,
        };
        if chars > chars_max {
            shown.truncate(cut);
            shown.extend((chars_max > 0).then_some(CUT_MARK));
            break;
        }
        if chars < chars_max {
            cut = shown.len();
        }
    }
    shown
}

fn push_escaped(shown: &mut String, character: char) {
    if is_unsafe(character) {
        shown.extend(character.escape_unicode());
    } else {
        shown.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_more_than_text_is_escaped() {
        for (text, shown) in [
            ("", ""),
            ("GET answered 503 (é, 鍵)", "GET answered 503 (é, 鍵)"),
            ("a\nb\r\tc\0", "a\\u{a}b\\u{d}\\u{9}c\\u{0}"),
            ("\u{1b}[2J\u{7f}\u{9b}31m", "\\u{1b}[2J\\u{7f}\\u{9b}31m"),
            (
                "\u{202e}evil\u{2066}\u{2028}",
                "\\u{202e}evil\\u{2066}\\u{2028}",
            ),
        ] {
            assert_eq!(escaped(text), shown);
        }
    }

    #[test]
    fn a_text_is_cut_between_characters_and_says_so() {
        for (text, chars_max, shown) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("äöüß", 3, "äö…"),
            ("a\n", 6, "a\\u{a}"),
            ("a\nb", 6, "a…"),
            ("\n", 2, "…"),
            ("abc", 0, ""),
        ] {
            assert_eq!(escaped_within(text, chars_max), shown, "{text:?}");
        }
    }

    /// Any text, rich in unsafe characters.
    fn text() -> impl Strategy<Value = String> {
        let character = prop_oneof![
            any::<char>(),
            (0_u32..0xA0).prop_filter_map("a character", char::from_u32),
            (0x2020_u32..0x2070).prop_filter_map("a character", char::from_u32),
        ];
        prop::collection::vec(character, 0..200).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn nothing_unsafe_survives_and_nothing_else_is_changed(text in text()) {
            let shown = escaped(&text).into_owned();
            prop_assert!(!shown.contains(is_unsafe));
            prop_assert!(!shown.contains(char::is_control));
            // Taking the escapes out again gives the text: nothing was lost, and nothing added.
            let mut rest = shown.as_str();
            for character in text.chars() {
                let expected = match is_unsafe(character) {
                    true => format!("\\u{{{:x}}}", u32::from(character)),
                    false => character.to_string(),
                };
                rest = rest.strip_prefix(expected.as_str()).expect("the same text");
            }
            prop_assert_eq!(rest, "");
        }

        #[test]
        fn a_cut_text_is_as_long_as_it_may_be(text in text(), chars_max in 0_usize..300) {
            let (whole, cut) = (escaped(&text), escaped_within(&text, chars_max));
            prop_assert!(cut.chars().count() <= chars_max);
            match cut.strip_suffix(CUT_MARK) {
                Some(kept) if cut != whole => prop_assert!(whole.starts_with(kept)),
                _ => prop_assert!(cut == whole || chars_max == 0),
            }
            prop_assert_eq!(escaped_within(&cut, chars_max), cut.as_str());
        }
    }
}
