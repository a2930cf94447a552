//! The NT hash of a password, which the range API calls NTLM: MD4 of its UTF-16LE (MS-NLMP 3.3.1, NTOWFv1).

use md4::{Digest as _, Md4};

/// Bytes of an NT hash.
pub const NT_HASH_BYTES: usize = 16;

/// The NT hash of a password. It takes one code unit at a time, so it leaves no copy of the password.
pub fn nt_hash(password: &str) -> [u8; NT_HASH_BYTES] {
    let mut md4 = Md4::new();
    for unit in password.encode_utf16() {
        md4.update(unit.to_le_bytes());
    }
    md4.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        for (password, hash) in [
            // MS-NLMP 4.2.2.1.2.
            ("Password", "a4f49c406510bdcab6824ee7c30fd852"),
            ("", "31d6cfe0d16ae931b73c59d7e0c089c0"),
            ("password", "8846f7eaee8fb117ad06bdd830b7586c"),
        ] {
            assert_eq!(hex::encode(nt_hash(password)), hash, "{password}");
        }
    }

    #[test]
    fn a_password_is_hashed_as_utf_16_with_surrogates() {
        for password in ["\u{e4}\u{20ac}", "\u{1f511}", "x\u{1f511}y"] {
            let utf_16: Vec<u8> = password.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let expected: [u8; NT_HASH_BYTES] = Md4::digest(utf_16).into();
            assert_eq!(nt_hash(password), expected, "{password}");
        }
        assert_ne!(nt_hash("\u{e4}"), nt_hash("a\u{308}"), "no normalization");
    }
}
