//! The program's allocator, the same wherever it is built: what Zig and glibc bring keeps 20 MB that nobody uses, and musl's
//! is slow (docs/PERFORMANCE.md). It never limits memory; the buffer's and the sessions' own bounds do.

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long a freed page may stay with the program. mimalloc's second of it would be 20 MB of a backlog that has just been
/// written.
const KEEP_FREED_MS: c_long = 10;

/// `mi_option_purge_delay` of mimalloc 3, in milliseconds; the crate has no name for it.
const PURGE_DELAY: c_int = 15;

/// Has freed pages given back to the system after [`KEEP_FREED_MS`]. To be called once, before there are threads.
pub fn give_back_soon() {
    #[expect(
        unsafe_code,
        reason = "mimalloc's options have no safe wrapper; setting one writes an integer"
    )]
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, KEEP_FREED_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_set_is_the_delay_of_a_second() {
        #[expect(unsafe_code, reason = "reads an integer of mimalloc's")]
        let delay = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(delay(), 1000, "mimalloc's options have moved");
        give_back_soon();
        assert_eq!(delay(), KEEP_FREED_MS);
    }
}
