//! What plans promise.

use super::*;
use proptest::prelude::*;

fn node(usage: Use, rack: Option<&str>) -> Node {
    Node { usage, rack: rack.map(str::to_owned) }
}

fn full(count: usize) -> Vec<Node> {
    vec![node(Use::Full, None); count]
}

fn group(weight: u64, nodes: &[usize]) -> Group {
    Group { weight, nodes: nodes.to_vec(), fixed: Vec::new() }
}

/// The groups after the moves, each of which must be possible.
fn carried_out(groups: &[Group], moves: &[Move]) -> Vec<Group> {
    let mut groups = groups.to_vec();
    for it in moves {
        let nodes = &mut groups[it.group].nodes;
        assert!(!nodes.contains(&it.to), "two placements of a group on node {}", it.to);
        let place = nodes.iter().position(|node| *node == it.from);
        nodes[place.expect("what moves is there")] = it.to;
    }
    groups
}

fn loads(count: usize, groups: &[Group]) -> Vec<u64> {
    let of = |node| groups.iter().filter(move |group| group.nodes.contains(&node));
    (0..count).map(|node| of(node).map(|group| group.weight).sum()).collect()
}

#[test]
fn a_fifth_node_gets_a_fifth_and_nothing_else_moves() {
    let groups: Vec<Group> = (0..20).map(|at| group(1, &[at % 4])).collect();
    assert_eq!(plan(&full(4), &groups), []);
    let moves = plan(&full(5), &groups);
    assert_eq!(moves.len(), 4);
    assert!(moves.iter().all(|it| it.to == 4));
    assert_eq!(loads(5, &carried_out(&groups, &moves)), [4; 5]);
}

#[test]
fn a_drained_node_ends_empty_and_the_others_stay_equal() {
    let groups: Vec<Group> = (0..12).map(|at| group(1, &[at % 4])).collect();
    let mut nodes = full(4);
    nodes[2].usage = Use::Drained;
    let moves = plan(&nodes, &groups);
    assert_eq!(moves.len(), 3);
    assert_eq!(loads(4, &carried_out(&groups, &moves)), [4, 4, 0, 4]);
}

#[test]
fn a_group_without_another_node_stays_on_the_drained_one() {
    let mut nodes = full(2);
    nodes[0].usage = Use::Drained;
    assert_eq!(plan(&nodes, &[group(5, &[0, 1])]), []);
}

#[test]
fn placements_in_one_rack_are_separated_if_another_rack_has_a_node() {
    let racks = [Some("a"), Some("a"), Some("b")];
    let nodes: Vec<Node> = racks.map(|rack| node(Use::Full, rack)).to_vec();
    let groups = [group(1, &[0, 1])];
    let moves = plan(&nodes, &groups);
    assert_eq!(moves.len(), 1);
    assert_eq!(moves[0].to, 2);
    // And they do not come together again for the sake of balance.
    let groups = [group(1, &[0, 2]), group(1, &[1, 2]), group(1, &[0, 2]), group(1, &[1, 2])];
    assert_eq!(plan(&nodes, &groups), []);
}

#[test]
fn one_rack_is_better_than_no_second_placement() {
    let mut nodes =
        vec![node(Use::Full, Some("a")), node(Use::Full, Some("a")), node(Use::Full, Some("b"))];
    nodes[2].usage = Use::Drained;
    assert_eq!(plan(&nodes, &[group(1, &[0, 2])]), [Move { group: 0, from: 2, to: 1 }]);
}

#[test]
fn a_node_that_is_away_neither_gives_nor_receives() {
    let mut nodes = full(3);
    nodes[1].usage = Use::Away;
    let groups = [group(1, &[0]), group(1, &[0]), group(1, &[1]), group(1, &[1]), group(1, &[1])];
    assert_eq!(plan(&nodes, &groups), [Move { group: 0, from: 0, to: 2 }]);
}

#[test]
fn a_placement_that_missed_writes_does_not_move() {
    let mut nodes = full(3);
    nodes[0].usage = Use::Drained;
    let stale = Group { fixed: vec![0], ..group(1, &[0]) };
    assert_eq!(plan(&nodes, &[stale, group(1, &[0])]), [Move { group: 1, from: 0, to: 1 }]);
}

#[test]
fn what_a_lost_node_had_is_made_anew_where_no_copy_is() {
    let nodes = full(4);
    let groups = [group(1, &[0, 1]), group(1, &[1, 2]), group(1, &[2, 3])];
    let moves = replace(&nodes, &groups, 1);
    assert_eq!(moves.len(), 2);
    assert!(moves.iter().all(|it| it.from == 1 && !groups[it.group].nodes.contains(&it.to)));
}

#[test]
fn a_giant_does_not_go_to_and_fro() {
    let groups = [group(100, &[0]), group(1, &[0]), group(1, &[1])];
    let moves = plan(&full(2), &groups);
    assert_eq!(moves, [Move { group: 1, from: 0, to: 1 }]);
    assert_eq!(plan(&full(2), &carried_out(&groups, &moves)), []);
}

fn usage() -> impl Strategy<Value = Use> {
    prop_oneof![4 => Just(Use::Full), 1 => Just(Use::Drained), 1 => Just(Use::Away)]
}

fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let rack = proptest::option::of(prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("c".to_owned())
    ]);
    proptest::collection::vec((usage(), rack).prop_map(|(usage, rack)| Node { usage, rack }), 2..8)
}

fn placed(count: usize) -> impl Strategy<Value = Vec<Group>> {
    let nodes = proptest::sample::subsequence((0..count).collect::<Vec<_>>(), 1..=count.min(3));
    proptest::collection::vec(
        (0_u64..50, nodes).prop_map(|(weight, nodes)| Group { weight, nodes, fixed: Vec::new() }),
        0..40,
    )
}

fn clusters() -> impl Strategy<Value = (Vec<Node>, Vec<Group>)> {
    nodes().prop_flat_map(|nodes| {
        let groups = placed(nodes.len());
        (Just(nodes), groups)
    })
}

proptest! {
    #[test]
    fn moves_can_be_carried_out_and_go_to_nodes_that_take_them((nodes, groups) in clusters()) {
        let moves = plan(&nodes, &groups);
        carried_out(&groups, &moves);
        for it in &moves {
            prop_assert_eq!(nodes[it.to].usage, Use::Full);
            prop_assert!(nodes[it.from].usage != Use::Away);
        }
    }

    #[test]
    fn no_placement_moves_twice((nodes, groups) in clusters()) {
        let moves = plan(&nodes, &groups);
        for (at, it) in moves.iter().enumerate() {
            prop_assert!(!moves[..at].iter().any(|before| before.group == it.group && before.to == it.from));
        }
    }

    #[test]
    fn a_drained_node_keeps_only_what_has_no_room_elsewhere((nodes, groups) in clusters()) {
        let after = carried_out(&groups, &plan(&nodes, &groups));
        for group in &after {
            let is_drained = group.nodes.iter().any(|node| nodes[*node].usage == Use::Drained);
            let has_room = (0..nodes.len()).any(|node| nodes[node].usage == Use::Full && !group.nodes.contains(&node));
            prop_assert!(!is_drained || !has_room);
        }
    }

    #[test]
    fn a_node_that_joins_balanced_ones_receives_its_share_at_most(
        (count, groups) in (2_usize..7).prop_flat_map(|count| (Just(count), placed(count)))
    ) {
        // Balanced first, until a plan has nothing to do.
        let mut groups = groups;
        for _ in 0..50 {
            let moves = plan(&full(count), &groups);
            if moves.is_empty() {
                break;
            }
            groups = carried_out(&groups, &moves);
        }
        prop_assert_eq!(plan(&full(count), &groups), []);
        // A node that is still empty would join as well.
        prop_assume!(!loads(count, &groups).contains(&0));
        let moves = plan(&full(count + 1), &groups);
        let total: u64 = loads(count, &groups).iter().sum();
        let moved: u64 = moves.iter().map(|it| groups[it.group].weight).sum();
        prop_assert!(moves.iter().all(|it| it.to == count), "{:?}", moves);
        prop_assert!(moved * (count as u64 + 1) <= total, "{moved} of {total}");
    }

    #[test]
    fn equal_groups_end_within_one_of_each_other(
        (count, homes) in (2_usize..7).prop_flat_map(|count| (Just(count), proptest::collection::vec(0..count, 0..40)))
    ) {
        let groups: Vec<Group> = homes.iter().map(|home| group(1, &[*home])).collect();
        let after = loads(count, &carried_out(&groups, &plan(&full(count), &groups)));
        let (least, most) = (after.iter().min(), after.iter().max());
        prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{:?}", after);
    }

    #[test]
    fn no_plan_makes_a_group_share_racks_more((nodes, groups) in clusters()) {
        // Draining may have to.
        let nodes: Vec<Node> = nodes
            .into_iter()
            .map(|node| Node { usage: if node.usage == Use::Drained { Use::Full } else { node.usage }, ..node })
            .collect();
        let shared = |group: &Group| {
            let racks: Vec<_> = group.nodes.iter().filter_map(|node| nodes[*node].rack.as_ref()).collect();
            let mut distinct = racks.clone();
            distinct.sort();
            distinct.dedup();
            racks.len() - distinct.len()
        };
        let after = carried_out(&groups, &plan(&nodes, &groups));
        for (before, after) in groups.iter().zip(&after) {
            prop_assert!(shared(after) <= shared(before));
        }
    }
}
