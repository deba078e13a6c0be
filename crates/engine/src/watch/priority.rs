//! Being gentle: work that can wait gives way to work that cannot.

use super::sys::priority;

/// From here on the calling thread reads and writes only when nobody else wants the disk, as far as its scheduler knows such a
/// class; otherwise nothing changes.
pub fn give_way() {
    if let Err(error) = priority::give_way() {
        tracing::debug!(%error, "reading is not put behind others'");
    }
}
