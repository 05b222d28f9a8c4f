//! The `ctid` of a row of a table with several shards: its shard and its place in the shard, in the 48 bits of a tid.
//!
//! A tid is a block's number (32 bits) and an offset in the block (16 bits). No offset of an ordinary page needs more
//! than nine bits, so the other seven carry the low bits of the shard's index; if there are more than 128 shards, the
//! block number's highest bits carry the rest. The `ctid`s of one shard therefore sort as they do on its node, different
//! rows have different `ctid`s, and what does not fit is known.

/// Bits of an offset in a page.
const OFFSET_BITS: u32 = 9;

/// Bits of the shard's index that the offset carries.
const LOW_BITS: u32 = 16 - OFFSET_BITS;

/// How the tids of a table with that many shards are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TidLayout {
    /// Bits of the shard's index that the block number carries.
    high_bits: u32,
}

/// A block and an offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tid {
    /// The block's number.
    pub block: u32,
    /// The offset.
    pub offset: u16,
}

impl TidLayout {
    /// The layout for a table of so many shards.
    pub fn for_shards(count: usize) -> Self {
        let last = count.saturating_sub(1) >> LOW_BITS;
        Self { high_bits: usize::BITS - last.leading_zeros() }
    }

    /// From [`Self::code`].
    pub fn from_code(code: u32) -> Self {
        Self { high_bits: code.min(31) }
    }

    /// As a number in a plan.
    pub fn code(self) -> u32 {
        self.high_bits
    }

    /// The tid of a row of a shard; none if the shard is too large for it.
    pub fn encode(self, shard: usize, tid: Tid) -> Option<Tid> {
        let shard = u32::try_from(shard).ok()?;
        let (low, high) = (shard & ((1 << LOW_BITS) - 1), shard >> LOW_BITS);
        let fits = u32::from(tid.offset) < 1 << OFFSET_BITS
            && u64::from(tid.block) < 1 << self.block_bits()
            && u64::from(high) < 1 << self.high_bits;
        let high = (u64::from(high) << self.block_bits()) as u32;
        fits.then_some(Tid {
            block: high | tid.block,
            offset: (low << OFFSET_BITS) as u16 | tid.offset,
        })
    }

    /// The shard, and the row's tid there.
    pub fn decode(self, tid: Tid) -> (usize, Tid) {
        let block = u64::from(tid.block);
        let high = (block >> self.block_bits()) as usize;
        let low = usize::from(tid.offset >> OFFSET_BITS);
        let block = (block & ((1 << self.block_bits()) - 1)) as u32;
        (high << LOW_BITS | low, Tid { block, offset: tid.offset & ((1 << OFFSET_BITS) - 1) })
    }

    /// SQL for the shard's index of a tid that `sql` yields, as a bigint.
    pub fn shard_sql(self, sql: &str) -> String {
        let (block, offset) = (part(sql, 0), part(sql, 1));
        if self.high_bits == 0 {
            return format!("({offset} >> {OFFSET_BITS})");
        }
        let bits = self.block_bits();
        format!("((({block} >> {bits}) << {LOW_BITS}) | ({offset} >> {OFFSET_BITS}))")
    }

    /// SQL for the tid on the shard's node.
    pub fn tid_sql(self, sql: &str) -> String {
        let (block, offset) = (part(sql, 0), part(sql, 1));
        let mask = (1_u64 << self.block_bits()) - 1;
        format!(
            "('(' || ({block} & {mask})::pg_catalog.text || ',' || ({offset} & {})::pg_catalog.text || ')')::pg_catalog.tid",
            (1 << OFFSET_BITS) - 1
        )
    }

    fn block_bits(self) -> u32 {
        32 - self.high_bits
    }
}

/// The block or the offset of a tid: SQL has no function for it, but the text of a tid is that of a point.
fn part(sql: &str, number: usize) -> String {
    format!("(({sql})::pg_catalog.text::pg_catalog.point)[{number}]::pg_catalog.int8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn up_to_128_shards_leave_the_block_number_alone() {
        let layout = TidLayout::for_shards(128);
        let tid = Tid { block: u32::MAX, offset: 291 };
        let encoded = layout.encode(127, tid).unwrap();
        assert_eq!(encoded.block, u32::MAX);
        assert_eq!(layout.decode(encoded), (127, tid));
        assert_eq!(layout.encode(0, tid), Some(tid));
    }

    #[test]
    fn a_shard_too_large_for_the_layout_is_known() {
        let layout = TidLayout::for_shards(129);
        assert_eq!(layout.encode(128, Tid { block: 1 << 31, offset: 1 }), None);
        assert_eq!(layout.encode(3, Tid { block: 1, offset: 512 }), None);
        assert!(layout.encode(128, Tid { block: (1 << 31) - 1, offset: 511 }).is_some());
    }

    proptest! {
        #[test]
        fn decoding_yields_what_was_encoded(
            count in 1_usize..100_000, shard in 0_usize..100_000, block in 0_u32..1 << 21, offset in 0_u16..512,
        ) {
            let layout = TidLayout::for_shards(count);
            prop_assert_eq!(TidLayout::from_code(layout.code()), layout);
            let tid = Tid { block, offset };
            if shard < count {
                let encoded = layout.encode(shard, tid).unwrap();
                prop_assert_eq!(layout.decode(encoded), (shard, tid));
            }
        }

        #[test]
        fn tids_of_one_shard_keep_their_order(
            shard in 0_usize..5_000, left in (0_u32..1 << 26, 0_u16..512), right in (0_u32..1 << 26, 0_u16..512),
        ) {
            let layout = TidLayout::for_shards(5_000);
            let encode = |(block, offset)| {
                let encoded = layout.encode(shard, Tid { block, offset }).unwrap();
                (encoded.block, encoded.offset)
            };
            prop_assert_eq!(left.cmp(&right), encode(left).cmp(&encode(right)));
        }
    }
}
