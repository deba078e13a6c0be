//! What cannot be read is kept, with the reason, where it is in nobody's way.

use std::path::Path;

use super::Report;
use crate::error::{During, PackError};
use crate::files::{File, Files, if_there};
use crate::place;
use crate::scan::{Damage, Scan};

/// What is copied at a time, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// Keeps the damaged pieces of a claimed file: the file itself where it has no sound member, else copies of them.
pub(super) fn keep(
    files: &dyn Files,
    claim: &Path,
    file: &dyn File,
    scan: &Scan,
    report: &mut Report,
) -> Result<(), PackError> {
    let name = claim.file_name().unwrap_or_default();
    let kept = place::quarantine_dir().join(name);
    let reason = reason(claim, scan);
    write_once(files, &place::quarantine_dir().join(format!("{}.reason", name.to_string_lossy())), reason.as_bytes())?;
    if scan.members.is_empty() {
        if_there(files.rename(claim, &kept)).during("quarantine", claim)?;
    } else {
        copy(files, &kept, file, &scan.damages)?;
    }
    let dir = place::quarantine_dir();
    files.sync_dir(&dir).during("sync", &dir)?;
    let first = scan.damages.first().map(|damage| damage.reason.clone()).unwrap_or_default();
    report.quarantined.push((name.to_string_lossy().into_owned(), first));
    Ok(())
}

fn reason(claim: &Path, scan: &Scan) -> String {
    let name = claim.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut text = format!("{name}: {} sound members were packed. What is kept here:\n", scan.members.len());
    let mut at = 0;
    for Damage { from, to, reason } in &scan.damages {
        text.push_str(&format!("bytes {at} to {}, from {from} on: {reason}\n", at + (to - from)));
        at += to - from;
    }
    text
}

fn copy(files: &dyn Files, to: &Path, file: &dyn File, damages: &[Damage]) -> Result<(), PackError> {
    // An earlier round may have been ended before it was done.
    if_there(files.remove(to)).during("replace", to)?;
    let kept = files.create_new(to).during("create", to)?;
    let (mut piece, mut written) = (vec![0; PIECE_BYTES], 0);
    for damage in damages {
        let mut at = damage.from;
        while at < damage.to {
            let len = usize::try_from(damage.to - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let count = file.read_at(&mut piece[..len], at).during("read", to)?;
            if count == 0 {
                break;
            }
            kept.write_at(&piece[..count], written).during("write", to)?;
            at += count as u64;
            written += count as u64;
        }
    }
    kept.sync().during("sync", to)
}

fn write_once(files: &dyn Files, path: &Path, bytes: &[u8]) -> Result<(), PackError> {
    if_there(files.remove(path)).during("replace", path)?;
    let file = files.create_new(path).during("create", path)?;
    file.write_at(bytes, 0).and_then(|()| file.sync()).during("write", path)
}
