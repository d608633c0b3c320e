//! `heddle perf`.

use ::perf::pipeline::{self, Error, Instructions, Options};

use super::args::Pipeline;
use super::{Failure, print};

/// Measures the pipeline, and shows what came out.
pub(super) fn pipeline(arguments: Pipeline) -> Result<(), Failure> {
    if let Some(workload) = &arguments.under_callgrind {
        return Ok(pipeline::under_callgrind(workload)?);
    }
    let json = arguments.json;
    let report = pipeline::run(&arguments.into())?;
    if json {
        let text = serde_json::to_string_pretty(&report);
        print(text.map_err(|error| Failure::failed(error.to_string()))?)?;
    } else {
        print(&report)?;
    }
    if report.passed() { Ok(()) } else { Err(Failure::failed(report.failures().join("\n"))) }
}

impl From<Pipeline> for Options {
    fn from(arguments: Pipeline) -> Self {
        let usual = Self::default();
        let Pipeline { bless, instructions, .. } = arguments;
        Self {
            workloads: arguments.workloads,
            batches: if arguments.batch.is_empty() { usual.batches } else { arguments.batch },
            repeats: arguments.repeats.unwrap_or(usual.repeats),
            packets: arguments.packets.unwrap_or(usual.packets),
            sweeps: arguments.sweeps.unwrap_or(usual.sweeps),
            core: arguments.core.unwrap_or(usual.core),
            clocks: !arguments.no_clocks,
            instructions: instructions.map(|baseline| Instructions { baseline, bless }),
            curves: arguments.curves,
            scaling: arguments.scaling,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::UnknownWorkload(_) | Error::BadBatch(_) | Error::NoRepeats => {
                Self::wrong(error.to_string())
            }
            _ => Self::failed(error.to_string()),
        }
    }
}
