//! Instructions of a coordinator to a node, and how the node knows that a coordinator has given them.
//!
//! What a node does for a coordinator it does in a session of the role whose statement it is, and that role may send
//! statements of its own over the same session. So an instruction that names hosts or files carries a proof: an HMAC-SHA256
//! over its purpose, the role, the time at which it was given, and its text, by a secret of the node that coordinators know and
//! ordinary roles do not.
//! Each node has a secret of its own: what is meant for one proves nothing to another. A role can repeat an
//! instruction that it was given, for as long as its proof holds ([`TOLERANCE`]); the node then does once more what that role's
//! statement had it do.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt::{self, Write};

/// What an instruction is for: a proof holds for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To split rows and keep them.
    Split,
    /// To fetch rows that other nodes keep.
    Fetch,
    /// To copy a placement from another node.
    Copy,
    /// To act as another role.
    Lend,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Split => "split rows",
            Self::Fetch => "fetch rows",
            Self::Copy => "copy a placement",
            Self::Lend => "act as another role",
        }
    }
}

/// What a node and its coordinators know.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; LENGTH]);

const LENGTH: usize = 32;

/// For how many seconds a proof holds, before and after the node's own time: statements wait for locks, and clocks differ.
pub const TOLERANCE: u64 = 15 * 60;

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// A secret as the node's table has it: 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// The instruction with its proof before it, given at `now`, in seconds.
    pub fn seal(&self, purpose: Purpose, role: &str, text: &str, now: u64) -> String {
        let mut sealed = String::with_capacity(2 * LENGTH + 22 + text.len());
        let now = now.to_string();
        for byte in self.mac(purpose, role, &now, text).finalize().into_bytes() {
            let _ = write!(sealed, "{byte:02x}");
        }
        let _ = write!(sealed, " {now}\n{text}");
        sealed
    }

    /// The instruction of a sealed text, if the proof holds at `now`. Compares in constant time.
    pub fn open<'a>(
        &self,
        purpose: Purpose,
        role: &str,
        sealed: &'a str,
        now: u64,
    ) -> Option<&'a str> {
        let (proof, text) = sealed.split_once('\n')?;
        let (proof, given) = proof.split_once(' ')?;
        let proof: [u8; LENGTH] = from_hex(proof)?;
        self.mac(purpose, role, given, text).verify_slice(&proof).ok()?;
        let given: u64 = given.parse().ok()?;
        (given.abs_diff(now) <= TOLERANCE).then_some(text)
    }

    fn mac(&self, purpose: Purpose, role: &str, given: &str, text: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::new_from_slice(&self.0).expect("an HMAC takes a key of any length");
        // Each with its length before it, so that nothing can be moved from one into the next.
        for part in [purpose.name(), role, given, text] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }
}

/// What a sealed text says, not looking at its proof: to be believed by nobody who acts on it.
pub fn unproven(sealed: &str) -> Option<&str> {
    sealed.split_once('\n').map(|(_, text)| text)
}

fn from_hex(text: &str) -> Option<[u8; LENGTH]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * LENGTH {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut bytes = [0; LENGTH];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(digit: char) -> Secret {
        Secret::from_hex(&String::from(digit).repeat(64)).expect("64 digits")
    }

    #[test]
    fn an_instruction_holds_for_its_purpose_role_and_node_only() {
        let sealed = secret('a').seal(Purpose::Fetch, "alice", "abc 5432 0 north\n", 10);
        let open = |by: &Secret, purpose, role| by.open(purpose, role, &sealed, 10).is_some();
        assert!(open(&secret('a'), Purpose::Fetch, "alice"));
        assert!(!open(&secret('a'), Purpose::Split, "alice"));
        assert!(!open(&secret('a'), Purpose::Fetch, "bob"));
        assert!(!open(&secret('b'), Purpose::Fetch, "alice"));
        assert_eq!(unproven(&sealed), Some("abc 5432 0 north\n"));
    }

    #[test]
    fn a_proof_holds_for_a_while_only() {
        let given = 1_000_000;
        let sealed = secret('a').seal(Purpose::Fetch, "alice", "text", given);
        let holds = |now| secret('a').open(Purpose::Fetch, "alice", &sealed, now).is_some();
        assert!(holds(given) && holds(given + TOLERANCE) && holds(given - TOLERANCE));
        assert!(!holds(given + TOLERANCE + 1) && !holds(given - TOLERANCE - 1) && !holds(0));
        let later = sealed.replacen(" 1000000\n", " 2000000\n", 1);
        assert_ne!(later, sealed);
        assert_eq!(secret('a').open(Purpose::Fetch, "alice", &later, 2_000_000), None);
    }

    #[test]
    fn the_proof_is_the_hmac_of_the_standard() {
        // Python: hmac.new(b'\xaa' * 32, parts, 'sha256'), the parts with their lengths before them.
        let sealed = secret('a').seal(Purpose::Copy, "r", "t", 1000);
        assert_eq!(
            sealed,
            "10672217538d0f4329cdf0ff0b7c7700cee8c2553761439a45b5966e9f9b5adb 1000\nt"
        );
    }

    #[test]
    fn a_secret_has_64_hexadecimal_digits() {
        assert_eq!(Secret::from_hex(""), None);
        assert_eq!(Secret::from_hex(&"g".repeat(64)), None);
        assert_eq!(Secret::from_hex(&"é".repeat(32)), None);
        assert_eq!(format!("{:?}", secret('1')), "Secret");
    }

    proptest! {
        #[test]
        fn a_changed_letter_is_noticed(text in ".{0,80}", at in any::<prop::sample::Index>()) {
            let sealed = secret('c').seal(Purpose::Split, "r", &text, 5);
            prop_assert_eq!(secret('c').open(Purpose::Split, "r", &sealed, 5), Some(&*text));
            let mut letters: Vec<char> = sealed.chars().collect();
            let at = at.index(letters.len());
            letters[at] = if letters[at] == 'x' { 'y' } else { 'x' };
            let changed: String = letters.into_iter().collect();
            prop_assert_eq!(secret('c').open(Purpose::Split, "r", &changed, 5), None);
        }

        #[test]
        fn garbage_proves_nothing(sealed in ".{0,200}") {
            prop_assert_eq!(secret('c').open(Purpose::Split, "r", &sealed, 5), None);
        }
    }
}
