//! How inputs are made: one to six changes to a valid encoding, or to an input with a new outcome.

/// Whole numbers at the limits of types and encodings.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX - 1,
    u64::MAX,
];
/// Bytes that open something in one of our formats: repeated, they nest.
const OPENERS: [&[u8]; 14] = [
    b"[",
    b"{\"a\":",
    b"[{\"a\":[",
    b"a=[",
    b"a={b=",
    b"[a.",
    b"a.",
    b"\"\\u",
    b"9",
    b"-",
    b"\x0b",
    b"\x0a\xff\xff\x03",
    b"\xff",
    b"\0",
];
/// Most changes to one input.
const CHANGES_MAX: usize = 6;
/// Most bytes that one change inserts, except when it nests.
const INSERT_MAX: usize = 64;

/// Each opener and word, repeated until the input is as long as it may be; and the empty input.
pub(crate) fn bombs(words: &[Vec<u8>], len_max: usize) -> Vec<Vec<u8>> {
    let pieces = OPENERS.iter().copied().chain(words.iter().map(Vec::as_slice));
    let repeated = pieces.filter(|piece| !piece.is_empty());
    repeated.map(|piece| piece.repeat(len_max / piece.len())).chain([Vec::new()]).collect()
}

pub(crate) struct Mutator<'a> {
    random: fastrand::Rng,
    words: &'a [Vec<u8>],
    len_max: usize,
}

impl<'a> Mutator<'a> {
    pub(crate) fn new(seed: u64, words: &'a [Vec<u8>], len_max: usize) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), words, len_max }
    }

    /// A changed copy of one of the inputs in `corpus`; made from nothing if there are none.
    pub(crate) fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.random.choice(corpus).cloned().unwrap_or_default();
        for _ in 0..self.random.usize(1..=CHANGES_MAX) {
            self.change(&mut bytes, corpus);
        }
        bytes.truncate(self.len_max);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.random.usize(0..=bytes.len());
        let range = self.range(bytes.len());
        match self.random.u8(0..64) {
            0..8 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.random.u8(0..8);
                }
            }
            8..14 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = self.random.u8(..);
                }
            }
            14..22 => self.number(bytes, at),
            22..26 => bytes.truncate(at),
            26..31 => drop(bytes.drain(range)),
            31..36 => {
                let piece = bytes[range].repeat(self.random.usize(1..4));
                insert(bytes, at, &piece);
            }
            36..42 => {
                let Some(other) = self.random.choice(corpus) else { return };
                let from = self.random.usize(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            42..46 => {
                let piece: Vec<u8> =
                    (0..self.random.usize(1..=INSERT_MAX)).map(|_| self.random.u8(..)).collect();
                insert(bytes, at, &piece);
            }
            46..53 => {
                let Some(word) = self.random.choice(self.words) else { return };
                insert(bytes, at, word);
            }
            53..58 => {
                let Some(word) = self.random.choice(self.words) else { return };
                drop(bytes.splice(range, word.iter().copied()));
            }
            58..62 => self.digits(bytes),
            _ => self.nest(bytes, at),
        }
    }

    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.random.usize(0..=len);
        let most = (len - start).min(if self.random.bool() { 8 } else { len });
        start..start + self.random.usize(0..=most)
    }

    fn edge(&mut self) -> u64 {
        let edge = EDGES[self.random.usize(..EDGES.len())];
        match self.random.u8(0..4) {
            0 => edge.wrapping_sub(self.random.u64(0..4)),
            1 => edge.wrapping_add(self.random.u64(0..4)),
            _ => edge,
        }
    }

    /// Writes a number from the limits over what is there, which may be a length, an index or a term.
    fn number(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let number = self.edge();
        let new = match self.random.u8(0..6) {
            0 => number.to_be_bytes()[7..].to_vec(),
            1 => number.to_be_bytes()[4..].to_vec(),
            2 => number.to_be_bytes().to_vec(),
            3 => number.to_le_bytes()[..4].to_vec(),
            _ => varint(number),
        };
        // The number overwrites as many bytes as it has, or one byte, as a number of variable length may have
        // had.
        let end = (at + if self.random.bool() { new.len() } else { 1 }).min(bytes.len());
        drop(bytes.splice(at..end, new));
    }

    /// Replaces a number that is written in digits by one from the limits.
    fn digits(&mut self, bytes: &mut Vec<u8>) {
        let at = self.random.usize(0..=bytes.len());
        let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|n| n + at) else { return };
        let len = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let new = match self.random.u8(0..8) {
            0 => "-1".to_owned(),
            1 => "1e999".to_owned(),
            2 => "0.5".to_owned(),
            _ => self.edge().to_string(),
        };
        drop(bytes.splice(start..start + len, new.into_bytes()));
    }

    fn nest(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let opener = OPENERS[self.random.usize(..OPENERS.len())];
        let room = self.len_max.saturating_sub(bytes.len()) / opener.len();
        let most = 1 << self.random.u32(4..14);
        let piece = opener.repeat(self.random.usize(0..=room.min(most)));
        insert(bytes, at, &piece);
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    drop(bytes.splice(at..at, piece.iter().copied()));
}

/// A number in protobuf's varint encoding.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_encoded_as_protobuf_encodes_them() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(300), [0xac, 2]);
        assert_eq!(varint(u64::MAX).len(), 10);
    }

    #[test]
    fn a_seed_repeats_and_no_input_is_too_long() {
        let corpus = [b"{\"a\":1}".to_vec(), vec![b'x'; 90]];
        let words = [b"word".to_vec()];
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed, &words, 100);
            (0..2_000).map(|_| mutator.mutate(&corpus)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        assert!(inputs(3).iter().all(|input| input.len() <= 100));
        assert!(bombs(&words, 100).iter().all(|input| input.len() <= 100));
    }
}
