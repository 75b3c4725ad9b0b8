//! How much an encoded message becomes, looked at before it is decoded.
//!
//! A field takes two bytes on the wire and fifty times as much once it is decoded: a frame at its cap that
//! holds nothing but empty entries, or fields nobody knows, would take half a gigabyte, a snapshot more than
//! there is. So they are counted first, on the bytes themselves.

/// Most entries of one message. A leader sends 1 MiB of them at a time; a command takes more than 16 bytes.
const ENTRIES_MAX: usize = 1 << 16;
/// Most fields that this version does not know, in one message: a newer one may send a few.
const UNKNOWN_MAX: usize = 64;
/// Longest metadata of a snapshot, in bytes: a thousand members take less.
const METADATA_LEN_MAX: usize = 32 << 10;

/// Field numbers of the library's `Message` that hold others, and the highest one.
const ENTRIES: u64 = 7;
const SNAPSHOT: u64 = 9;
const MESSAGE_LAST: u64 = 16;
/// The same of its `Snapshot` and `Entry`.
const METADATA: u64 = 2;
const SNAPSHOT_LAST: u64 = 2;
const ENTRY_LAST: u64 = 6;

/// Checks an encoded message.
///
/// # Errors
/// What it holds too much of, or that it is none.
pub(crate) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let (mut entries, mut unknown, mut metadata_len) = (0, 0, 0);
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            ENTRIES => {
                entries += 1;
                unknown += unknown_fields(value, ENTRY_LAST)?;
            }
            SNAPSHOT => {
                unknown += unknown_fields(value, SNAPSHOT_LAST)?;
                for field in Fields(value) {
                    let (number, value) = field?;
                    metadata_len += if number == METADATA { value.len() } else { 0 };
                }
            }
            _ => unknown += usize::from(number > MESSAGE_LAST),
        }
        if entries > ENTRIES_MAX {
            return Err("too many entries");
        }
        if unknown > UNKNOWN_MAX {
            return Err("too many unknown fields");
        }
        if metadata_len > METADATA_LEN_MAX {
            return Err("a snapshot with too much metadata");
        }
    }
    Ok(())
}

fn unknown_fields(bytes: &[u8], last_known: u64) -> Result<usize, &'static str> {
    let mut unknown = 0;
    for field in Fields(bytes) {
        unknown += usize::from(field?.0 > last_known);
    }
    Ok(unknown)
}

/// The fields of one message: number, and the bytes of those that have a length.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, &'a [u8]), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or("a field that is cut off or of an unknown type"))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, &'a [u8])> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => {
                self.varint()?;
                &[]
            }
            1 => self.take(8)?,
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                self.take(len)?
            }
            5 => self.take(4)?,
            // Groups: older than this protocol.
            _ => return None,
        };
        Some((tag >> 3, value))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            // The last of ten bytes has room for one bit; what is beyond it is dropped, as the decoder does.
            number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use protobuf::Message as _;
    use raft::eraftpb::{Entry, Message};

    use super::*;

    #[test]
    fn honest_messages_pass_whatever_they_hold() {
        let mut message = Message { term: u64::MAX, priority: -1, reject: true, ..Message::default() };
        message.entries =
            vec![Entry { index: u64::MAX, data: vec![9; 300].into(), ..Entry::default() }].into();
        message.mut_snapshot().mut_metadata().mut_conf_state().voters = (1..1_000).collect();
        assert_eq!(check(&message.write_to_bytes().expect("encodes")), Ok(()));
        // Fields of a newer version.
        let newer =
            [message.write_to_bytes().expect("encodes"), vec![0x98, 0x06, 1, 0x9a, 0x06, 1, b'x']].concat();
        assert_eq!(check(&newer), Ok(()));
    }

    #[test]
    fn what_would_swell_is_refused() {
        let snapshot = |metadata: &[u8]| {
            let len = u8::try_from(metadata.len()).expect("short");
            [&[0x4a, len + 2, 0x12, len][..], metadata].concat()
        };
        let cases = [
            ([0x3a, 0].repeat(ENTRIES_MAX + 1), "too many entries"),
            ([0xa0, 0x06, 0].repeat(UNKNOWN_MAX + 1), "unknown fields"),
            ([0x3a, 3, 0xa0, 0x06, 0].repeat(UNKNOWN_MAX + 1), "unknown fields"),
            ([0x4a, 3, 0xa0, 0x06, 0].repeat(UNKNOWN_MAX + 1), "unknown fields"),
            (snapshot(&[1; 100]).repeat(METADATA_LEN_MAX / 100 + 1), "metadata"),
        ];
        for (bytes, why) in cases {
            let refused = check(&bytes).expect_err(why);
            assert!(refused.contains(why), "{why}: {refused}");
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in
            [&[0x0b][..], &[0x3a, 5, 1], &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x7f], &[0x80; 11], &[0x09, 1]]
        {
            assert!(check(bytes).is_err(), "{bytes:?}");
        }
    }
}
