//! Which partitions a table has.

use pg::PgError;
use pg::catalog::privileged;
use pgrx::pg_sys::Oid;

/// The partitions of a table, each with its bound as SQL; not those of its partitions.
pub(crate) fn partitions(table: Oid) -> Result<Vec<(Oid, String)>, PgError> {
    let sql = format!(
        "SELECT c.oid, pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS bound \
         FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = {} AND c.relispartition ORDER BY c.relname",
        table.to_u32()
    );
    let found = privileged::read_catalogs(|client| {
        let mut found = Vec::new();
        for row in client.select(&sql, None, &[])? {
            let oid = row.get_by_name::<Oid, _>("oid")?;
            let bound = row.get_by_name::<String, _>("bound")?;
            found.extend(oid.zip(bound));
        }
        Ok::<_, pgrx::spi::SpiError>(found)
    });
    found.map_err(|error| PgError::internal(error.to_string()))
}

/// The table and all that are partitions of it, at any depth.
pub(crate) fn tree(table: Oid) -> Result<Vec<Oid>, PgError> {
    let mut all = vec![table];
    for (partition, _) in partitions(table)? {
        all.extend(tree(partition)?);
    }
    Ok(all)
}
