//! Millions of hostile frames through the whole data path on in-memory ports: nothing panics, no
//! buffer is lost, and every frame comes to an end that is counted.
//!
//! `HOSTILE_FRAMES` says how many; the default takes some seconds.

use std::collections::HashSet;

use dataplane::drops as of_the_loop;
use pipelines::drops;
use tests::hostile::{Generator, Stage};

/// Frames, unless the environment says otherwise.
const FRAMES: usize = 10_000_000;

/// Frames between two looks at the accounts.
const ROUND: usize = 4_099;

fn frames() -> usize {
    match std::env::var("HOSTILE_FRAMES") {
        Ok(text) => text.parse().expect("HOSTILE_FRAMES is a number of frames"),
        Err(_) => FRAMES,
    }
}

#[test]
fn the_switch_bears_hostile_frames() {
    let (mut generator, mut stage) = (Generator::new(67), Stage::new());
    let (total, mut done) = (frames(), 0);
    let mut shots = Vec::new();
    while done < total {
        let round = ROUND.min(total - done);
        for _ in 0..round {
            shots.push(generator.shot());
            // Batches of every size.
            if shots.len() > done % 67 {
                stage.feed(&shots);
                shots.clear();
            }
            done += 1;
        }
        stage.feed(&shots);
        shots.clear();
        assert_eq!(stage.balance(), Ok(()), "after {done} frames");
    }
    println!("figure: {total} hostile frames in, {} out", stage.delivered());
    reaches_everything(&stage, total);
}

/// A generator that stops at the first check tests nothing behind it: of the frames, some must
/// have met every end that frames can meet here.
fn reaches_everything(stage: &Stage, total: usize) {
    // Other workers, devices that fail or have queues, and a host stack behind its ring, there are
    // not.
    let absent = [
        of_the_loop::HANDOFF_FULL,
        of_the_loop::PORT_FAILED,
        of_the_loop::QUEUE_FULL,
        drops::UNANSWERABLE,
    ];
    let absent = HashSet::from(absent);
    let missed: Vec<_> = drops::explanations()
        .filter(|known| !absent.contains(&known.reason) && stage.dropped(known.reason) == 0)
        .map(|known| known.symbol)
        .collect();
    assert!(total < 100_000 || missed.is_empty(), "no frame was dropped for {missed:?}");
    assert!(stage.delivered() > total as u64 / 10, "{} of {total} came out", stage.delivered());
}
