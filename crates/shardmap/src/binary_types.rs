//! Types whose binary form means the same on every server, of every version: rows of such columns travel in it from node to node, which takes
//! two thirds of the time.
//!
//! A type that stands for an object of the catalogs (regclass, say) is sent as a number in binary form, which is another object elsewhere. What is not listed here
//! travels as text.

/// By OID: bool, bytea, "char", name, int8, int2, int4, text, oid, json, float4, float8, macaddr, inet, cidr, bpchar, varchar, date, time,
/// timestamp, timestamptz, timetz, bit, varbit, numeric, uuid, jsonb.
const TYPES: [u32; 27] = [
    16, 17, 18, 19, 20, 21, 23, 25, 26, 114, 700, 701, 829, 869, 650, 1042, 1043, 1082, 1083, 1114,
    1184, 1266, 1560, 1562, 1700, 2950, 3802,
];

/// Arrays of bool, bytea, int2, int4, text, bpchar, varchar, int8, float4, float8, timestamp, date, timestamptz, numeric, uuid, jsonb.
const ARRAYS: [u32; 16] = [
    1000, 1001, 1005, 1007, 1009, 1014, 1015, 1016, 1021, 1022, 1115, 1182, 1185, 1231, 2951, 3807,
];

/// All of these types have a binary form that means the same everywhere.
pub fn are_portable(types: impl IntoIterator<Item = u32>) -> bool {
    types.into_iter().all(|oid| TYPES.contains(&oid) || ARRAYS.contains(&oid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_objects_or_is_made_by_users_travels_as_text() {
        assert!(are_portable([20, 25, 1184, 1007]));
        assert!(!are_portable([20, 2205]), "regclass");
        assert!(!are_portable([20, 1034]), "an array of aclitem");
        assert!(!are_portable([20, 16_400]), "an enum");
    }
}
