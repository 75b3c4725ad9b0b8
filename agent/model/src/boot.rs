//! The boot of a machine, as the kernel names it.

use serde::{Deserialize, Serialize};

/// One boot of a machine. CLOCK_BOOTTIME begins anew with each, so a time on that clock means nothing in
/// another boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BootId([u8; 16]);

impl BootId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id that the kernel writes as hexadecimal digits with dashes. Of anything else, what can be read.
    pub fn from_text(text: &str) -> Self {
        let digits = text.chars().filter_map(|digit| digit.to_digit(16));
        let mut bytes = [0; 16];
        for (at, digit) in digits.take(32).enumerate() {
            bytes[at / 2] = bytes[at / 2] << 4 | u8::try_from(digit).unwrap_or(0);
        }
        Self(bytes)
    }
}

impl std::fmt::Display for BootId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for BootId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// A text that is no boot id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a boot id is 32 hexadecimal digits, with or without dashes")]
pub struct NoBootId;

impl TryFrom<String> for BootId {
    type Error = NoBootId;
    fn try_from(text: String) -> Result<Self, NoBootId> {
        let digits = text.chars().filter(char::is_ascii_hexdigit).count();
        let others = text.chars().filter(|c| !c.is_ascii_hexdigit() && *c != '-').count();
        if (digits, others) == (32, 0) { Ok(Self::from_text(&text)) } else { Err(NoBootId) }
    }
}

impl From<BootId> for String {
    fn from(id: BootId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_the_kernel_writes_it_and_as_it_is_written_here() {
        let kernel = "0b00c5d1-8f3e-4c4e-9d51-0123456789ab";
        let id = BootId::try_from(kernel.to_owned()).expect("a boot id");
        assert_eq!(id, BootId::from_text(kernel));
        assert_eq!(BootId::try_from(id.to_string()), Ok(id));
        for wrong in ["", "0b00", "0b00c5d1-8f3e-4c4e-9d51-0123456789abc", "zb00c5d18f3e4c4e9d510123456789ab"]
        {
            assert_eq!(BootId::try_from(wrong.to_owned()), Err(NoBootId), "{wrong}");
        }
    }
}
