//! `heddle perf pipeline`: what the walk costs, with in-memory ports on one pinned core.
//!
//! [`run`] measures clocks per packet ([`measure`]), instructions per packet by callgrind
//! ([`instructions`]), how cost grows ([`curves`]), and what a second worker adds ([`scaling`]).
//! The walk is the product's own, driven through its worker's engine ([`rig`]).

pub mod curves;
pub mod instructions;
pub mod measure;
pub mod report;
pub mod rig;
pub mod scaling;
pub mod traffic;
pub mod workload;

use std::io;
use std::path::PathBuf;

use dataplane::ids::WorkerId;
use dataplane::memory::ArenaError;
use dataplane::publish::SubscribeError;
use dataplane::shared::SharedError;
use dataplane::worker::WorkerError;
use pipelines::fdb::BadSize;
use thiserror::Error;

pub use instructions::{Instructions, under_callgrind};
pub use report::Report;

use measure::{Effort, Sweep};
use report::{Cache, Origin, Row};
use rig::Rig;
use workload::{ALL, Workload};

/// What to measure.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    /// Names of workloads; none for all.
    pub workloads: Vec<String>,
    /// Batch sizes, at most 256.
    pub batches: Vec<usize>,
    /// Repeats of each row, at least one; five for figures that are to be shown.
    pub repeats: usize,
    /// Packets of a repeat.
    pub packets: usize,
    /// Batches of a cold repeat.
    pub sweeps: usize,
    /// The core to pin to.
    pub core: usize,
    /// Whether clocks are measured.
    pub clocks: bool,
    /// Whether instructions are counted, and what is done with the counts.
    pub instructions: Option<Instructions>,
    /// Whether cost curves are drawn.
    pub curves: bool,
    /// Whether two workers are measured against one; the second gets another core.
    pub scaling: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workloads: Vec::new(),
            batches: vec![1, 4, 16, 64, 256],
            repeats: 11,
            packets: 32_768,
            sweeps: 4,
            core: 1,
            clocks: true,
            instructions: None,
            curves: false,
            scaling: false,
        }
    }
}

/// Why there is no report. What was measured and is not as it should be is a failure in the [`Report`].
#[derive(Debug, Error)]
pub enum Error {
    /// No workload is called like this.
    #[error(
        "`{0}` is not a workload: expected one of {names}",
        names = ALL.map(|workload| workload.name).join(", ")
    )]
    UnknownWorkload(String),
    /// A batch is empty, or larger than a worker's.
    #[error("a batch of {0} packets: from 1 to 256 are possible")]
    BadBatch(usize),
    /// There is nothing to take a median of.
    #[error("no repeats: at least one is needed")]
    NoRepeats,
    /// The binary counts no allocations.
    #[error("this binary's global allocator is not dataplane::alloc::Counting")]
    NotCounting,
    /// The core does not exist, or is not ours to use.
    #[error("can't pin to core {core}: {source}")]
    Pin {
        /// The core.
        core: usize,
        /// What the kernel said.
        source: rustix::io::Errno,
    },
    /// Frames were lost that should not be.
    #[error("{workload}: {dropped} frames were dropped")]
    Lossy {
        /// The workload.
        workload: &'static str,
        /// Frames that went no further.
        dropped: u64,
    },
    /// More workers were asked for than there is memory for.
    #[error("no packet memory for worker {0}")]
    NoWorker(WorkerId),
    /// Packet memory failed.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// Shared tables failed.
    #[error(transparent)]
    Shared(#[from] SharedError),
    /// The learned FDB can't have that size.
    #[error(transparent)]
    Fdb(#[from] BadSize),
    /// Tables can't be had.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// A worker failed.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A thread ended before it had measured.
    #[error("a measuring thread ended early")]
    ThreadEnded,
    /// A system call failed.
    #[error("{call}: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file failed.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The committed counts can't be read.
    #[error("{}: {source}", path.display())]
    Counts {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Callgrind did not end well.
    #[error("callgrind on {workload} failed:\n{log}")]
    Callgrind {
        /// The workload.
        workload: &'static str,
        /// What it said last.
        log: String,
    },
}

/// Measures what the options name.
///
/// # Errors
///
/// [`Error`](enum@Error) when something can't be measured.
pub fn run(options: &Options) -> Result<Report, Error> {
    let workloads = chosen(options)?;
    let mut sweep = Sweep::of_this_machine();
    let origin = Origin::current(sweep.bytes());
    let instructions = match &options.instructions {
        Some(instructions) => instructions::count(&workloads, instructions)?,
        None => Vec::new(),
    };
    // Asked before pinning, which leaves only one.
    let cores = measure::pair(options.core)?;
    measure::pin(options.core)?;
    let mut rows = Vec::new();
    for workload in workloads.iter().filter(|_| options.clocks) {
        rows.extend(rows_of(workload, options, &mut sweep)?);
    }
    let curves = options.curves.then(|| curves::draw(cores)).transpose()?;
    let scaling = options.scaling.then(|| scaling::measure(options, cores)).transpose()?;
    Ok(Report { origin, rows, instructions, curves, scaling })
}

fn chosen(options: &Options) -> Result<Vec<&'static Workload>, Error> {
    if let Some(&bad) = options.batches.iter().find(|batch| !(1..=256).contains(*batch)) {
        return Err(Error::BadBatch(bad));
    }
    if options.clocks && !dataplane::alloc::is_counting() {
        return Err(Error::NotCounting);
    }
    if options.workloads.is_empty() {
        return Ok(ALL.iter().collect());
    }
    options.workloads.iter().map(|name| Workload::named(name)).collect()
}

/// All rows of a workload, hot ones first.
fn rows_of(
    workload: &'static Workload,
    options: &Options,
    sweep: &mut Sweep,
) -> Result<Vec<Row>, Error> {
    let Options { repeats, packets, sweeps, .. } = *options;
    let mut rig = Rig::new(workload)?;
    let steps = rig.steps();
    let mut rows = Vec::new();
    for cache in [Cache::Hot, Cache::Cold].into_iter().filter(|&c| c == Cache::Hot || sweeps > 0) {
        for &batch in &options.batches {
            let effort = Effort { repeats, packets, sweeps };
            let row = measure::row(&mut rig, workload, (batch, cache), effort, sweep)?;
            rows.push(Row { steps: steps.clone(), ..row });
        }
    }
    Ok(rows)
}
