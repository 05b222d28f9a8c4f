//! SQL with holes for the shards' names.

use crate::code::{Coded, Coder, Reference};

/// Stands for the shard's index in SQL that is being put together: no SQL has a zero byte.
pub const SHARD_INDEX: char = '\0';

/// A piece of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Piece<O> {
    /// SQL.
    Text(String),
    /// The name of a shard of this table.
    Table(O),
    /// What the shard of a table has in the place of its constraint of this name.
    Object(O, String),
    /// The shard's index, as a number.
    #[default]
    Index,
}

impl<O: Reference> Coded for Piece<O> {
    fn code(&mut self, coder: &mut dyn Coder) {
        let mut kind = match self {
            Self::Text(_) => 0,
            Self::Table(_) => 1,
            Self::Index => 2,
            Self::Object(..) => 3,
        };
        let known = kind;
        coder.number(&mut kind);
        if kind != known {
            *self = match kind {
                0 => Self::Text(String::new()),
                1 => Self::Table(O::default()),
                3 => Self::Object(O::default(), String::new()),
                _ => Self::Index,
            };
        }
        match self {
            Self::Text(text) => coder.text(text),
            Self::Table(table) => coder.reference(table),
            Self::Object(table, name) => {
                coder.reference(table);
                coder.text(name);
            }
            Self::Index => {}
        }
    }
}

/// A template, coded.
pub(crate) fn code<O: Reference>(template: &mut Vec<Piece<O>>, coder: &mut dyn Coder) {
    coder.list(template, |piece, coder| piece.code(coder));
}

/// SQL with holes, as it grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces<O>(pub Vec<Piece<O>>);

impl<O> Default for Pieces<O> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<O> Pieces<O> {
    /// Appends text, in which [`SHARD_INDEX`] is a hole.
    pub fn text(&mut self, text: &str) {
        for (number, text) in text.split(SHARD_INDEX).enumerate() {
            if number > 0 {
                self.0.push(Piece::Index);
            }
            match self.0.last_mut() {
                Some(Piece::Text(last)) => last.push_str(text),
                _ => self.0.push(Piece::Text(text.to_owned())),
            }
        }
    }

    /// Appends other pieces.
    pub fn append(&mut self, pieces: Self) {
        for piece in pieces.0 {
            match (self.0.last_mut(), piece) {
                (Some(Piece::Text(last)), Piece::Text(text)) => last.push_str(&text),
                (_, piece) => self.0.push(piece),
            }
        }
    }

    /// Appends a hole for the name of a shard of this table.
    pub fn table(&mut self, table: O) {
        self.0.push(Piece::Table(table));
    }

    /// The text, if there is no hole in it.
    pub fn into_text(self) -> Option<String> {
        let text = |piece| match piece {
            Piece::Text(text) => Some(text),
            Piece::Table(_) | Piece::Object(..) | Piece::Index => None,
        };
        self.0.into_iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_grow_together_until_a_hole() {
        let mut pieces = Pieces::default();
        pieces.text("SELECT ");
        pieces.text("1 FROM ");
        pieces.table(7_u32);
        pieces.text(" t");
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(pieces.0, [text("SELECT 1 FROM "), Piece::Table(7), text(" t")]);
    }

    #[test]
    fn the_place_of_an_index_in_a_text_is_a_hole() {
        let mut pieces = Pieces::<u32>::default();
        pieces.text(&format!("'{SHARD_INDEX}'::int4"));
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(pieces.0, [text("'"), Piece::Index, text("'::int4")]);
        assert_eq!(pieces.into_text(), None);
    }

    #[test]
    fn appended_pieces_join_at_their_seam() {
        let (mut left, mut right) = (Pieces::<u32>::default(), Pieces::default());
        left.text("a ");
        right.text("b");
        left.append(right);
        assert_eq!(left.into_text().as_deref(), Some("a b"));
    }
}
