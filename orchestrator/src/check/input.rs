//! Reads passwords, or their hashes, line by line, through one buffer that is cleared at the end.

use super::hash::{NotText, PasswordHash};
use prefix_tar::protocol::mode::Mode;
use std::io::{self, Read};
use zeroize::Zeroizing;

/// The longest password, in bytes. A terminal's line is not longer, either.
pub const PASSWORD_BYTES_MAX: usize = 4096;

/// A line with its end, CRLF.
const LINE_BYTES_MAX: usize = PASSWORD_BYTES_MAX + 2;

/// What the lines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// Passwords.
    Passwords,
    /// Hashes in hex.
    Hashes,
}

/// Why a line cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum InputFault {
    /// It is longer than any password.
    #[error("the line has more than {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// It is not as many hex characters as a hash has.
    #[error("the line is not {}: {} hex characters", a_hash(*.0), .0.hash_characters())]
    NotAHash(Mode),
    /// It is a password that is not text, and has no NTLM hash.
    #[error("the line is not valid UTF-8, and a password that is not text has no NTLM hash")]
    NotText,
    /// The input ended before the first line.
    #[error("the input is empty")]
    Nothing,
    /// More follows the only line that is asked for.
    #[error("the input has more than one line; --batch checks all of them")]
    MoreThanOne,
    /// The input cannot be read.
    #[error("cannot read the input: {0}")]
    Unreadable(#[from] io::Error),
}

const fn a_hash(mode: Mode) -> &'static str {
    match mode {
        Mode::Sha1 => "a SHA-1 hash",
        Mode::Ntlm => "an NTLM hash",
    }
}

impl From<NotText> for InputFault {
    fn from(_: NotText) -> Self {
        Self::NotText
    }
}

/// Reads hashes from lines.
pub struct HashReader<Input> {
    input: Input,
    kind: InputKind,
    mode: Mode,
    /// It never grows, so no copy of its content is left behind.
    buffer: Zeroizing<Vec<u8>>,
    /// What is read and not used yet.
    start: usize,
    end: usize,
    is_at_end: bool,
}

impl<Input: Read> HashReader<Input> {
    /// Reads hashes of `mode` from `input`, which should have no buffer of its own.
    pub fn new(input: Input, kind: InputKind, mode: Mode) -> Self {
        Self {
            input,
            kind,
            mode,
            buffer: Zeroizing::new(vec![0; LINE_BYTES_MAX]),
            start: 0,
            end: 0,
            is_at_end: false,
        }
    }

    /// The hash of the next line; `None` at the end. The last line need not have an end.
    ///
    /// # Errors
    /// The line cannot be used. The next one may be, unless the input cannot be read.
    pub fn next_hash(&mut self) -> Option<Result<PasswordHash, InputFault>> {
        match self.next_line() {
            Ok(Some(line)) => {
                let line = self.buffer.get(line).unwrap_or_default();
                Some(hash_of(line, self.kind, self.mode))
            }
            Ok(None) => None,
            Err(fault) => Some(Err(fault)),
        }
    }

    /// The hash of the only line.
    ///
    /// # Errors
    /// The line is missing or cannot be used, or another one is already there.
    pub fn only_hash(&mut self) -> Result<PasswordHash, InputFault> {
        let hash = self.next_hash().unwrap_or(Err(InputFault::Nothing))?;
        if self.start < self.end {
            return Err(InputFault::MoreThanOne);
        }
        Ok(hash)
    }

    /// Finds the next line in the buffer.
    fn next_line(&mut self) -> Result<Option<std::ops::Range<usize>>, InputFault> {
        let mut searched = self.start;
        loop {
            let unsearched = self.buffer.get(searched..self.end).unwrap_or_default();
            if let Some(at) = unsearched.iter().position(|byte| *byte == b'\n') {
                let line = self.start..searched + at;
                self.start = line.end + 1;
                return Ok(Some(line));
            }
            searched = self.end;
            if self.is_at_end {
                let line = self.start..self.end;
                self.start = self.end;
                return Ok((!line.is_empty()).then_some(line));
            }
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                searched = self.end;
                self.start = 0;
            }
            if self.end == self.buffer.len() {
                self.skip_line()?;
                return Err(InputFault::TooLong);
            }
            self.fill()?;
        }
    }

    /// Reads more behind what is there.
    fn fill(&mut self) -> io::Result<()> {
        let free = self.buffer.get_mut(self.end..).unwrap_or_default();
        let read = loop {
            match self.input.read(free) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        // An input that fails is at its end: another attempt might fail for ever.
        self.is_at_end = !matches!(read, Ok(bytes) if bytes > 0);
        self.end += read?;
        Ok(())
    }

    /// Discards the rest of a line.
    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let unused = self.buffer.get(self.start..self.end).unwrap_or_default();
            if let Some(at) = unused.iter().position(|byte| *byte == b'\n') {
                self.start += at + 1;
                return Ok(());
            }
            (self.start, self.end) = (0, 0);
            if self.is_at_end {
                return Ok(());
            }
            self.fill()?;
        }
    }
}

fn hash_of(line: &[u8], kind: InputKind, mode: Mode) -> Result<PasswordHash, InputFault> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > PASSWORD_BYTES_MAX {
        return Err(InputFault::TooLong);
    }
    match kind {
        InputKind::Passwords => Ok(PasswordHash::of_password(line, mode)?),
        InputKind::Hashes => PasswordHash::parse(line, mode).ok_or(InputFault::NotAHash(mode)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Delivers its bytes in pieces.
    struct InPieces<'bytes>(&'bytes [u8], usize);

    impl Read for InPieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let bytes = self.1.min(buffer.len());
            (&mut self.0).take(bytes as u64).read(buffer)
        }
    }

    fn sha1(password: &[u8]) -> PasswordHash {
        PasswordHash::of_password(password, Mode::Sha1).expect("a hash")
    }

    /// The hashes of all lines; `None` for one that is too long.
    fn hashes(input: impl Read) -> Vec<Option<PasswordHash>> {
        let mut reader = HashReader::new(input, InputKind::Passwords, Mode::Sha1);
        std::iter::from_fn(|| reader.next_hash())
            .map(Result::ok)
            .collect()
    }

    fn of(passwords: &[&[u8]]) -> Vec<Option<PasswordHash>> {
        let hash = |password: &&[u8]| Some(sha1(password));
        passwords.iter().map(hash).collect()
    }

    #[test]
    fn a_line_is_a_password_without_its_line_end() {
        for (input, passwords) in [
            (&b""[..], &[][..]),
            (b"a", &[&b"a"[..]]),
            (b"a\n", &[b"a"]),
            (b"a\r\nb \r\n", &[b"a", b"b "]),
            (b"\n\na", &[b"", b"", b"a"]),
            (b"\xFF\r\r\n", &[b"\xFF\r"]),
        ] {
            assert_eq!(hashes(input), of(passwords), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn a_line_that_is_too_long_costs_no_other() {
        let longest = vec![b'x'; PASSWORD_BYTES_MAX];
        let longer = vec![b'x'; PASSWORD_BYTES_MAX + 1];
        let much_longer = vec![b'x'; 5 * PASSWORD_BYTES_MAX];
        let input = [
            &longest,
            &longer,
            &b"a".to_vec(),
            &much_longer,
            &b"b".to_vec(),
            &longer,
        ];
        let input = input.map(Vec::as_slice).join(&b"\r\n"[..]);
        let found = hashes(&input[..]);
        let is_found: Vec<bool> = found.iter().map(Option::is_some).collect();
        assert_eq!(is_found, [true, false, true, false, true, false]);
        let [first, _, a, _, b, _] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(
            [first, a, b].map(Clone::clone).to_vec(),
            of(&[&longest, b"a", b"b"])
        );
    }

    #[test]
    fn only_one_line_is_expected_without_batch() {
        let only =
            |input: &[u8]| HashReader::new(input, InputKind::Passwords, Mode::Sha1).only_hash();
        for input in [&b"a"[..], b"a\n", b"a\r\n"] {
            assert_eq!(only(input).expect("a hash"), sha1(b"a"));
        }
        assert!(matches!(only(b""), Err(InputFault::Nothing)));
        assert!(matches!(only(b"a\nb"), Err(InputFault::MoreThanOne)));
    }

    #[test]
    fn a_hash_that_is_none_is_refused_and_not_quoted() {
        for (mode, expected) in [
            (
                Mode::Sha1,
                "the line is not a SHA-1 hash: 40 hex characters",
            ),
            (
                Mode::Ntlm,
                "the line is not an NTLM hash: 32 hex characters",
            ),
        ] {
            let mut reader = HashReader::new(&b"hunter2\n"[..], InputKind::Hashes, mode);
            let fault = reader.only_hash().expect_err("not a hash");
            assert_eq!(fault.to_string(), expected);
        }
    }

    #[test]
    fn a_password_that_is_not_text_costs_no_other_its_ntlm_hash() {
        let input = &b"a\ncaf\xE9\nb\n"[..];
        let mut reader = HashReader::new(input, InputKind::Passwords, Mode::Ntlm);
        let found: Vec<_> = std::iter::from_fn(|| reader.next_hash()).collect();
        let [Ok(_), Err(InputFault::NotText), Ok(b)] = &found[..] else {
            panic!("{found:?}");
        };
        let expected = PasswordHash::of_password(b"b", Mode::Ntlm);
        assert_eq!(expected.as_ref(), Ok(b));
    }

    #[test]
    fn an_input_that_fails_ends() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        assert_eq!(hashes(Broken), [None]);
    }

    proptest! {
        #[test]
        fn lines_are_the_same_for_any_division_of_the_input(
            lines in proptest::collection::vec("[a\u{e4}\r ]{0,9}|x{4090,4100}", 0..12),
            piece_bytes in 1_usize..6_000,
        ) {
            let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let expected: Vec<Option<PasswordHash>> = lines
                .iter()
                .map(|line| line.strip_suffix('\r').unwrap_or(line).as_bytes())
                .map(|line| (line.len() <= PASSWORD_BYTES_MAX).then(|| sha1(line)))
                .collect();
            prop_assert_eq!(hashes(InPieces(input.as_bytes(), piece_bytes)), expected);
        }
    }
}
