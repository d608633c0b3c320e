//! Why a packet went no further: each reason has a number, a symbol and a sentence.

/// The reason of a drop: the index of its counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Reason(u8);

/// What people are told about a reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The reason that is explained.
    pub reason: Reason,
    /// A stable name for counters, metrics and `--json`.
    pub symbol: &'static str,
    /// What happened, and what to look at.
    pub sentence: &'static str,
}

impl Reason {
    /// How many reasons there can be: those of the loop, then those of the pipeline.
    pub const COUNT: usize = 64;

    /// The first number that belongs to the pipeline.
    pub const FIRST_OF_PIPELINE: u8 = 16;

    /// The reason with this number; numbers beyond [`Reason::COUNT`] fold into the last.
    pub const fn new(number: u8) -> Self {
        Self(if number < LAST { number } else { LAST })
    }

    /// The index of its counter, below [`Reason::COUNT`].
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

const LAST: u8 = 63;
const _: () = assert!(LAST as usize + 1 == Reason::COUNT);

/// Declares drop reasons as constants, numbered upwards from `$first`, and the table `$table` that
/// explains them.
#[macro_export]
macro_rules! drop_reasons {
    ($first:expr, $(#[$meta:meta])* $table:ident, $($name:ident = $symbol:literal, $sentence:literal;)*) => {
        $crate::drop_reasons!(@number ($first) $($name $sentence)*);
        $(#[$meta])*
        pub const $table: &[$crate::drops::Explanation] = &[$($crate::drops::Explanation {
            reason: $name, symbol: $symbol, sentence: $sentence,
        }),*];
    };
    (@number ($number:expr) $name:ident $sentence:literal $($rest:tt)*) => {
        #[doc = $sentence]
        pub const $name: $crate::drops::Reason = $crate::drops::Reason::new($number);
        $crate::drop_reasons!(@number ($number + 1) $($rest)*);
    };
    (@number ($number:expr)) => {
        const _: () = assert!(($number as usize) <= $crate::drops::Reason::COUNT);
    };
}

drop_reasons! { 0,
    /// The reasons of the worker loop, in the order of their numbers.
    OF_THE_LOOP,
    NO_MEMORY = "no_memory", "No packet memory was free for a copy or a segment: raise `host.memory`.";
    NO_QUEUE = "no_queue", "The port that the frame was to leave by had just been removed.";
    PORT_FULL = "port_full", "The port took no more: its receiver is slower than what is sent to it.";
    PORT_FAILED = "port_failed", "The device refused the frame: it is down, gone, or smaller than the frame.";
    BAD_OFFLOAD = "bad_offload", "The frame's checksum or segmentation request contradicts its headers.";
    HANDOFF_FULL = "handoff_full", "The worker that had to take the frame over was too far behind.";
    NO_HOST_STACK = "no_host_stack", "The frame was for heddle itself, and its host stack was not running or too far behind.";
    NO_RECEIVER = "no_receiver", "The frame was to reach every other port of its network, and there is none.";
    OVERSIZED = "oversized", "The frame was larger than a slot of packet memory.";
    QUEUE_FULL = "queue_full", "The worker was too far behind, and the kernel's queue of the port was full.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_table() {
        for (number, explanation) in OF_THE_LOOP.iter().enumerate() {
            assert_eq!(explanation.reason.index(), number);
            assert!(explanation.sentence.ends_with('.'));
        }
        assert!(OF_THE_LOOP.len() <= usize::from(Reason::FIRST_OF_PIPELINE));
    }
}
