//! The memory of the process: which allocator gives it, and how soon what is not used any more goes back to the system. Keeps
//! no memory itself, and changes nothing that the environment (`MIMALLOC_PURGE_DELAY`) has set.

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, by its place in `mi_option_t` of mimalloc 3: the bindings do not name it.
const PURGE_DELAY: c_int = 15;

/// How long unused pages are kept. A second, which is the allocator's own choice, is a tenth of the memory of a server that has
/// just been written to; at once is a tenth of its speed, as what goes must be cleared when it comes back.
const PURGE_DELAY_MS: c_long = 10;

// SAFETY: as mimalloc.h declares it. It takes any numbers, and ignores an option that is not there.
unsafe extern "C" {
    safe fn mi_option_set_default(option: c_int, value: c_long);
}

/// Lets unused memory go early. To be called before there is any to speak of.
pub fn tune() {
    mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS);
}

#[cfg(test)]
mod tests {
    use super::{PURGE_DELAY, c_int, c_long};

    unsafe extern "C" {
        safe fn mi_option_get(option: c_int) -> c_long;
    }

    /// Nothing else than the delay has this value, so a place that moved with another version is noticed.
    #[test]
    fn the_option_is_the_one_that_is_meant() {
        assert_eq!(mi_option_get(PURGE_DELAY), 1000);
        super::tune();
        assert_eq!(mi_option_get(PURGE_DELAY), super::PURGE_DELAY_MS);
    }
}
