//! Hostile frames: what strangers could send, by a generator or by a fuzzer, and a switch on
//! in-memory ports that has to bear it.

mod generator;
mod stage;
mod templates;

use std::time::Duration;

use control::compile;
use control::config::Config;
use control::model::{Desired, Inventory};
use dataplane::ids::PortId;
use dataplane::wire::vnet;
use zerocopy::{FromBytes, IntoBytes};

pub use generator::Generator;
pub use stage::{PORTS, Stage};

/// One frame that comes in by a port, with what its device says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shot {
    /// The port.
    pub port: PortId,
    /// Seconds since the frame before.
    pub seconds: u8,
    /// The virtio-net header in front of it.
    pub header: vnet::Header,
    /// The frame, from its Ethernet header on.
    pub frame: Vec<u8>,
}

/// Bytes in front of a frame in a script: port, seconds, length, virtio-net header.
const HEAD: usize = 4 + vnet::HEADER_LEN;

impl Shot {
    /// Appends the shot to a script, the form that fuzzers change and corpora keep.
    ///
    /// # Panics
    ///
    /// For a frame of more than 65,535 bytes.
    pub fn write_to(&self, script: &mut Vec<u8>) {
        let length = u16::try_from(self.frame.len()).expect("scripts hold frames of 16 bits");
        script.extend([self.port.0.to_be_bytes()[1], self.seconds]);
        script.extend(length.to_be_bytes());
        script.extend(self.header.as_bytes());
        script.extend(&self.frame);
    }

    /// The shots of a script. Every script is one: a port beyond the last is folded back, and the
    /// last frame is as long as the bytes reach.
    pub fn read(mut script: &[u8]) -> Vec<Self> {
        let mut shots = Vec::new();
        while let Some((head, rest)) = script.split_at_checked(HEAD) {
            let length = usize::from(u16::from_be_bytes([head[2], head[3]])).min(rest.len());
            let header = vnet::Header::read_from_bytes(&head[4..]).unwrap_or_default();
            let port = PortId(u16::from(head[0]) % PORTS);
            shots.push(Self { port, seconds: head[1], header, frame: rest[..length].to_vec() });
            script = &rest[length..];
        }
        shots
    }
}

/// What the fuzz target `frame` does with its input: feeds the frames of a script to a switch, and
/// checks its accounts.
///
/// # Panics
///
/// When they don't balance.
pub fn bear(script: &[u8]) {
    let mut stage = Stage::new();
    stage.feed(&Shot::read(script));
    assert_eq!(stage.balance(), Ok(()));
}

/// What the fuzz target `config` does with its input: reads it as a configuration and, if it is
/// one, compiles it as far as tables; if not, puts into words what is wrong.
///
/// # Panics
///
/// When a message is empty.
pub fn configure(text: &str) {
    match Config::parse(text, "fuzz.toml") {
        Ok(config) => {
            let (desired, _) = Desired::new(&config, &[]);
            if let Ok(plan) = Inventory::default().plan(&desired, Duration::ZERO) {
                compile::compile_all(plan.next.model(), 67);
            }
        }
        Err(report) => assert!(report.to_string().contains("fuzz.toml")),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): any seed will do, and the same one gives the same numbers.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A sequence that follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: usize) -> usize {
        let wide = u128::from(self.bits()) * limit as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// One of `choices`, of which there is at least one.
    pub fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Eight bits.
    pub fn byte(&mut self) -> u8 {
        self.bits().to_be_bytes()[0]
    }

    /// Sixteen bits.
    pub fn word(&mut self) -> u16 {
        let [a, b, ..] = self.bits().to_be_bytes();
        u16::from_be_bytes([a, b])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_hold_shots() {
        let mut generator = Generator::new(67);
        let shots: Vec<_> = std::iter::from_fn(|| Some(generator.shot()))
            .filter(|shot| shot.frame.len() <= usize::from(u16::MAX))
            .take(257)
            .collect();
        let mut script = Vec::new();
        shots.iter().for_each(|shot| shot.write_to(&mut script));
        assert_eq!(Shot::read(&script), shots);
        assert_eq!(Shot::read(&[7; HEAD - 1]), []);
    }

    #[test]
    fn random_numbers_reach_their_ends() {
        let mut random = Random::new(0);
        let mut seen = [false; 67];
        (0..10_000).for_each(|_| seen[random.below(67)] = true);
        assert!(seen.iter().all(|&seen| seen));
    }
}
