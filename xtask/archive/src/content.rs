//! What a table holds, as a number of rows and a hash that does not depend on their order.
//!
//! The hash is the sum of the rows' BLAKE3 hashes, 128 bits of each. A server gives rows in any order, a restored table in
//! another one than the first; the same rows give the same sum.

use std::fmt;

/// Rows and their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Content {
    pub rows: u64,
    pub hash: u128,
}

/// What both hold together.
impl std::ops::AddAssign for Content {
    fn add_assign(&mut self, other: Content) {
        self.rows += other.rows;
        self.hash = self.hash.wrapping_add(other.hash);
    }
}

impl fmt::Display for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} rows, {:032x}", self.rows, self.hash)
    }
}

/// Takes the lines of COPY in pieces that need not end where rows do.
#[derive(Debug, Default)]
pub struct Hasher {
    content: Content,
    /// The begin of a row whose end is in a later piece.
    open: Option<Box<blake3::Hasher>>,
}

impl Hasher {
    pub fn update(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (row, next) = rest.split_at(end + 1);
            let hash = match self.open.take() {
                Some(mut begun) => begun.update(row).finalize(),
                None => blake3::hash(row),
            };
            self.add(&hash);
            rest = next;
        }
        if !rest.is_empty() {
            self.open.get_or_insert_default().update(rest);
        }
    }

    /// One item of something that is not made of lines.
    pub fn add(&mut self, hash: &blake3::Hash) {
        let (half, _) = hash.as_bytes().split_at(16);
        let number = half.try_into().map_or(0, u128::from_le_bytes);
        self.content.rows += 1;
        self.content.hash = self.content.hash.wrapping_add(number);
    }

    /// A last row without an end counts too.
    pub fn finish(mut self) -> Content {
        if let Some(open) = self.open.take() {
            self.add(&open.finalize());
        }
        self.content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[&str]) -> Content {
        let mut hasher = Hasher::default();
        pieces.iter().for_each(|piece| hasher.update(piece.as_bytes()));
        hasher.finish()
    }

    #[test]
    fn neither_the_order_of_rows_nor_the_cut_of_pieces_matters() {
        let whole = of(&["1\ta\n2\tb\n3\t\\N\n"]);
        assert_eq!(whole.rows, 3);
        assert_eq!(whole, of(&["3\t\\N\n1\ta\n2\tb\n"]));
        assert_eq!(whole, of(&["1\t", "a\n2\tb", "\n3\t\\N\n"]));
        assert_eq!(of(&[]), Content::default());
    }

    #[test]
    fn another_row_another_number_or_another_split_is_another_hash() {
        let whole = of(&["1\ta\n2\tb\n"]);
        for other in ["1\ta\n2\tc\n", "1\ta\n", "1\ta\n2\tb\n2\tb\n", "1\ta2\tb\n\n"] {
            assert_ne!(whole, of(&[other]), "{other:?}");
        }
        // A row twice is not a row less: a sum, unlike an exclusive or, counts.
        assert_ne!(of(&["a\na\n"]).hash, of(&["b\nb\n"]).hash);
    }
}
