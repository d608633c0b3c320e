//! A global allocator that counts, so that a measurement can show that the walk allocates nothing.
//!
//! The binary installs [`Counting`] as its `#[global_allocator]`. Each thread has its own count:
//! one addition to a thread-local word per allocation, and nothing that threads share.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

thread_local! {
    /// Neither made lazily nor dropped, so it may be used at any moment of a thread's life.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, with a count of what each thread asks of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counting;

/// How often the calling thread has allocated or reallocated memory; zero for ever if
/// [`Counting`] is not the process's allocator.
pub fn allocations() -> u64 {
    COUNT.get()
}

/// Whether allocations are counted in this process. Allocates to find out.
pub fn is_counting() -> bool {
    let before = allocations();
    drop(black_box(Box::new(before)));
    allocations() != before
}

fn count() {
    COUNT.set(COUNT.get().wrapping_add(1));
}

// SAFETY: every call is the system allocator's own, with the caller's arguments; counting
// neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is the one that the system allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`; `block` came from the system allocator through us.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as in `realloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_counted_on_the_thread_that_makes_them() {
        let layout = Layout::from_size_align(67, 8).unwrap();
        let before = allocations();
        // SAFETY: the layout is not empty, and the block is freed with the layout it has.
        unsafe {
            let block = Counting.alloc(layout);
            let block = Counting.realloc(block, layout, 257);
            Counting.dealloc(block, Layout::from_size_align(257, 8).unwrap());
        }
        assert_eq!(allocations() - before, 2);
        assert_eq!(std::thread::spawn(allocations).join().unwrap(), 0);
        assert!(!is_counting(), "tests run on the system's allocator");
    }
}
