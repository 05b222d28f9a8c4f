//! Moving, copying and removing placements.

use crate::relocation::{self, Kind};
use pg::sys::error::raise;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use shardmap::{NodeAddress, ShardId};

fn node(name: &str, port: i32) -> NodeAddress {
    NodeAddress { host: name.into(), port }
}

#[pg_extern]
fn move_shard(
    shard_id: i64,
    source_name: &str,
    source_port: i32,
    target_name: &str,
    target_port: i32,
) {
    let (source, target) = (node(source_name, source_port), node(target_name, target_port));
    raise(relocation::relocate(Kind::Move, ShardId(shard_id), &source, &target));
}

#[pg_extern]
fn copy_shard(
    shard_id: i64,
    source_name: &str,
    source_port: i32,
    target_name: &str,
    target_port: i32,
) {
    let (source, target) = (node(source_name, source_port), node(target_name, target_port));
    raise(relocation::relocate(Kind::Copy, ShardId(shard_id), &source, &target));
}

#[pg_extern]
fn replace_placement(
    shard_id: i64,
    source_name: &str,
    source_port: i32,
    lost_name: &str,
    lost_port: i32,
    target_name: &str,
    target_port: i32,
) {
    let (source, target) = (node(source_name, source_port), node(target_name, target_port));
    let lost = node(lost_name, lost_port);
    raise(relocation::replace(ShardId(shard_id), &source, &lost, &target));
}

#[pg_extern]
fn drop_placement(shard_id: i64, node_name: &str, node_port: i32) {
    raise(relocation::remove(ShardId(shard_id), &node(node_name, node_port)));
}

#[pg_extern]
fn split_shard(shard_id: i64, split_points: Vec<i32>) -> Vec<i64> {
    let parts = raise(relocation::split(ShardId(shard_id), &split_points));
    parts.into_iter().map(|part| part.0).collect()
}

#[pg_extern]
fn isolate_key(table_name: Oid, key: &str) -> i64 {
    raise(relocation::isolate(table_name, key)).0
}
