//! How the allocator keeps large blocks.

/// Blocks of so many bytes and more are mapped each for itself, and given back as soon as they are freed. `false`: it cannot be told.
#[cfg(target_env = "gnu")]
pub(crate) fn map_blocks_from(bytes: libc::c_int) -> bool {
    // SAFETY: the call takes numbers; it changes how later allocations are served, and none that was made.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, bytes) == 1 }
}

/// Other allocators do that by themselves, or not at all.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn map_blocks_from(_bytes: libc::c_int) -> bool {
    false
}
