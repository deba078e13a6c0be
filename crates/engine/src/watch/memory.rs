//! Being small: memory that is not needed any more is given back.

use super::sys::memory;

/// A buffer for reading a file is smaller; a batch of records is larger.
const LARGE: i32 = 512 * 1024;

/// From here on large blocks go back to the system as soon as they are freed. Left to itself, the C library keeps more and more of
/// them in between small ones.
pub fn give_back_large_blocks() {
    if !memory::map_blocks_from(LARGE) {
        tracing::debug!("freed memory may be kept");
    }
}
