//! Whoever watches the walks of one worker at the moment.

use std::ops::ControlFlow::{Break, Continue};

use dataplane::drops::Reason;
use dataplane::memory::Packet;
use dataplane::pipeline::{Egress, Step, Verdict};
use dataplane::time::Nanos;

use crate::capture::Recorder;
use crate::trace::{Teller, Told};

/// Who is told the steps of packets, and who takes copies of them.
#[derive(Debug, Default)]
pub struct Watch {
    /// Tells the steps.
    pub teller: Option<Teller>,
    /// Takes the copies.
    pub recorder: Option<Recorder>,
}

impl Watch {
    /// Whether nobody watches.
    pub fn is_empty(&self) -> bool {
        self.teller.is_none() && self.recorder.is_none()
    }

    /// A batch begins: who no longer listens is let go.
    #[cold]
    pub fn begin(&mut self) {
        self.teller.take_if(|teller| !teller.is_heard());
        self.teller.iter_mut().for_each(Teller::pause);
    }

    /// A packet begins its walk.
    pub fn enter(&mut self, packet: &Packet, now: Nanos) {
        if let Some(teller) = &mut self.teller {
            teller.enter(packet, now);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.enter(packet, now);
        }
    }

    /// A step has done something.
    pub fn tell(&mut self, told: impl FnOnce() -> Told) {
        if let Some(teller) = &mut self.teller {
            teller.tell(told());
        }
    }

    /// A packet's walk has ended.
    pub fn decided(&mut self, verdict: Verdict) {
        self.tell(|| Told::Decided(verdict));
        if let Some(recorder) = &mut self.recorder {
            recorder.decided(verdict);
        }
    }

    /// A packet, or a copy or segment of one, leaves, or is stopped at the last moment.
    pub fn emitted(&mut self, way: Egress, step: Step, packet: &Packet, now: Nanos) {
        self.tell(|| match step {
            Continue(()) => Told::Emitted(way),
            Break(verdict) => Told::Refused(way, verdict),
        });
        if let Some(recorder) = &mut self.recorder {
            match step {
                Continue(()) => recorder.sent(way, packet, now),
                Break(Verdict::Drop(reason)) => recorder.lost(reason, packet, now),
                Break(_) => {}
            }
        }
    }

    /// A packet goes no further although its walk had ended otherwise.
    pub fn lost(&mut self, reason: Reason, packet: &Packet, now: Nanos) {
        if let Some(recorder) = &mut self.recorder {
            recorder.lost(reason, packet, now);
        }
    }
}
