//! Port numbers that are used again, in another network than before.

use std::sync::Arc;

use dataplane::ids::{MacAddr, PortId, SegmentId};
use pipelines::tables::{Role, Tables};
use proptest::prelude::*;

use crate::bench::{Bench, OPEN};
use crate::frames;

/// A second network whose stations are learned.
const OTHER: SegmentId = SegmentId(4);
/// The ports that change between the two.
const PORTS: std::ops::RangeInclusive<u16> = 3..=5;

#[derive(Debug, Clone)]
enum Step {
    /// One station sends to another, from a port.
    Send { port: u16, from: u8, to: u8 },
    /// A port's owner goes, and the number is given to somebody in one of the networks.
    Reuse { port: u16, segment: SegmentId },
}

fn step() -> impl Strategy<Value = Step> {
    let segment = prop_oneof![Just(OPEN), Just(OTHER)];
    prop_oneof![
        3 => (PORTS, 0u8..4, 0u8..4).prop_map(|(port, from, to)| Step::Send { port, from, to }),
        1 => (PORTS, segment).prop_map(|(port, segment)| Step::Reuse { port, segment }),
    ]
}

fn station(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 67, number])
}

fn move_to(tables: &mut Tables, port: u16, segment: SegmentId) {
    let port = PortId(port);
    for other in [OPEN, OTHER] {
        let members = Arc::make_mut(&mut tables.segments.row_mut(other.index()).members);
        members.retain(|member| *member != port);
        members.extend((other == segment).then_some(port));
        members.sort();
    }
    let row = tables.ports.row_mut(port.index());
    row.role = Role::Endpoint(segment);
    row.generation = row.generation.next();
}

/// Ports that have left a frame's network since its destination was learned get none of it.
fn check(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut bench = Bench::with(|tables| {
        tables.segments.row_mut(OTHER.index()).ageing = 10;
    });
    let mut place = [OPEN; 3];
    for step in steps {
        match *step {
            Step::Reuse { port, segment } => {
                bench.change(|tables| move_to(tables, port, segment));
                place[usize::from(port - 3)] = segment;
            }
            Step::Send { port, from, to } => {
                let frame = frames::udp(station(from), station(to), [10, 0, 9, 67], 67);
                let out = bench.send(port, &frame).ports();
                let network = place[usize::from(port - 3)];
                let leaks = |out: &u16| place[usize::from(out - 3)] != network || *out == port;
                prop_assert!(!out.iter().any(leaks), "{step:?} leaves by {out:?} of {place:?}");
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_port_number_used_again_gets_nothing_of_its_old_network(
        steps in prop::collection::vec(step(), 1..67)
    ) {
        check(&steps)?;
    }
}
