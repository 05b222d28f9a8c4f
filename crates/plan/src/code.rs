//! Values as numbers and texts. What a value consists of is said once, by [`Coded::code`]: a coder that writes takes what it is
//! shown, a coder that reads puts what it has in its place.

use shardmap::Prune;
use shardmap::tid::TidLayout;

/// An object of the server: a table, a type, an operator.
pub trait Reference: Copy + Default + From<u32> + Into<u32> {}

impl<T: Copy + Default + From<u32> + Into<u32>> Reference for T {}

/// Writes values, or reads them in the order in which they were written.
pub trait Coder {
    /// A number.
    fn number(&mut self, value: &mut i32);

    /// A text.
    fn text(&mut self, value: &mut String);
}

/// A value that consists of numbers and texts.
pub trait Coded: Default {
    /// Shows the coder what the value consists of.
    fn code(&mut self, coder: &mut dyn Coder);
}

impl dyn Coder + '_ {
    /// Yes or no.
    pub fn flag(&mut self, value: &mut bool) {
        let mut number = i32::from(*value);
        self.number(&mut number);
        *value = number != 0;
    }

    /// A number of things, or the place of one among them.
    pub fn count(&mut self, value: &mut usize) {
        let mut number = i32::try_from(*value).unwrap_or(i32::MAX);
        self.number(&mut number);
        *value = usize::try_from(number).unwrap_or(0);
    }

    /// A number of 64 bits.
    pub fn wide(&mut self, value: &mut i64) {
        let mut high = (*value >> 32) as i32;
        let mut low = *value as i32;
        self.number(&mut high);
        self.number(&mut low);
        *value = i64::from(high) << 32 | i64::from(low.cast_unsigned());
    }

    /// An object of the server.
    pub fn reference<O: Reference>(&mut self, value: &mut O) {
        let number: u32 = (*value).into();
        let mut number = number.cast_signed();
        self.number(&mut number);
        *value = O::from(number.cast_unsigned());
    }

    /// Something that may be missing.
    pub fn option<T: Default>(
        &mut self,
        value: &mut Option<T>,
        mut part: impl FnMut(&mut T, &mut Self),
    ) {
        let mut is_there = value.is_some();
        self.flag(&mut is_there);
        if is_there {
            part(value.get_or_insert_with(T::default), self);
        } else {
            *value = None;
        }
    }

    /// A list.
    pub fn list<T: Default>(&mut self, list: &mut Vec<T>, mut each: impl FnMut(&mut T, &mut Self)) {
        let mut length = list.len();
        self.count(&mut length);
        list.resize_with(length, T::default);
        for item in list {
            each(item, self);
        }
    }

    /// A list of objects of the server.
    pub fn references<O: Reference>(&mut self, list: &mut Vec<O>) {
        self.list(list, |item, coder| coder.reference(item));
    }

    /// A list of places.
    pub fn places(&mut self, list: &mut Vec<usize>) {
        self.list(list, |item, coder| coder.count(item));
    }

    /// Two texts.
    pub fn texts(&mut self, (first, second): &mut (String, String)) {
        self.text(first);
        self.text(second);
    }

    /// How `ctid`s carry their shard.
    pub fn layout(&mut self, value: &mut TidLayout) {
        let mut code = value.code().cast_signed();
        self.number(&mut code);
        *value = TidLayout::from_code(code.cast_unsigned());
    }
}

impl<K: Coded> Coded for Prune<K> {
    fn code(&mut self, coder: &mut dyn Coder) {
        let mut kind = match self {
            Self::All => 0,
            Self::Key(_) => 1,
            Self::And(_) => 2,
            Self::Or(_) => 3,
        };
        let known = kind;
        coder.number(&mut kind);
        if kind != known {
            *self = match kind {
                1 => Self::Key(K::default()),
                2 => Self::And(Vec::new()),
                3 => Self::Or(Vec::new()),
                _ => Self::All,
            };
        }
        match self {
            Self::All => {}
            Self::Key(key) => key.code(coder),
            Self::And(parts) | Self::Or(parts) => coder.list(parts, |part, it| part.code(it)),
        }
    }
}
