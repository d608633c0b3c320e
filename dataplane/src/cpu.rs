//! What only the processor can do: prefetch a line, count clocks.
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Asks for the cache line at the start of `target`, to be read soon, in all cache levels. A hint:
/// it never faults and changes nothing that a program can see. Does nothing on processors other
/// than x86-64.
#[inline(always)]
pub fn prefetch_read<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch has no architectural effect at any address, and every x86-64
        // processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}

/// The time-stamp counter, read after everything before it has been done and before anything
/// after it begins: two of these bracket the code between them. In units of
/// [`tsc_frequency`], nanoseconds on processors other than x86-64.
#[inline(always)]
pub fn tsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_mm_lfence, _rdtsc};
        // SAFETY: both are part of x86-64's baseline and touch no memory. The fences keep the
        // read from moving in either direction (Intel SDM, volume 2B, RDTSC).
        unsafe {
            _mm_lfence();
            let clocks = _rdtsc();
            _mm_lfence();
            clocks
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    nanoseconds_since_first_call()
}

/// Counts of [`tsc`] per second. Read from CPUID where it says so, else measured once against
/// the monotonic clock, which takes 10 ms.
pub fn tsc_frequency() -> u64 {
    static FREQUENCY: OnceLock<u64> = OnceLock::new();
    *FREQUENCY.get_or_init(|| stated_frequency().unwrap_or_else(measured_frequency))
}

/// CPUID leaf 0x15: the core crystal's frequency and its ratio to the counter's (Intel SDM,
/// volume 2A, CPUID). Hypervisors and AMD leave it zero.
#[cfg(target_arch = "x86_64")]
fn stated_frequency() -> Option<u64> {
    use core::arch::x86_64::{__cpuid, __get_cpuid_max};
    const RATIO_AND_CRYSTAL: u32 = 0x15;
    if __get_cpuid_max(0).0 < RATIO_AND_CRYSTAL {
        return None;
    }
    let leaf = __cpuid(RATIO_AND_CRYSTAL);
    let scaled = u64::from(leaf.ecx) * u64::from(leaf.ebx);
    scaled.checked_div(u64::from(leaf.eax)).filter(|&hertz| hertz != 0)
}

#[cfg(not(target_arch = "x86_64"))]
fn stated_frequency() -> Option<u64> {
    Some(1_000_000_000)
}

fn measured_frequency() -> u64 {
    const SPAN: Duration = Duration::from_millis(10);
    let (begin, first) = (Instant::now(), tsc());
    while begin.elapsed() < SPAN {
        std::hint::spin_loop();
    }
    let (elapsed, last) = (begin.elapsed(), tsc());
    let per_second = u128::from(last.wrapping_sub(first)) * 1_000_000_000 / elapsed.as_nanos();
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

#[cfg(not(target_arch = "x86_64"))]
fn nanoseconds_since_first_call() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    crate::time::Nanos::from(FIRST.get_or_init(Instant::now).elapsed()).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_advances_at_its_frequency() {
        let (begin, first) = (Instant::now(), tsc());
        while begin.elapsed() < Duration::from_millis(20) {
            prefetch_read(&first);
        }
        let (elapsed, clocks) = (begin.elapsed().as_secs_f64(), tsc() - first);
        #[expect(clippy::cast_precision_loss, reason = "a ratio to within some percent")]
        let ratio = clocks as f64 / (tsc_frequency() as f64 * elapsed);
        assert!((0.8..1.25).contains(&ratio), "counted {ratio} of what the frequency promises");
    }
}
