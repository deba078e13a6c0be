//! Any bytes as a staging file or as an archive: what must hold of them.

use std::fs;
use std::path::Path;

use keepwatch_pack::{ArchiveName, Base, STAGING_DIR, ScavengeOptions, Scavenger};

use super::{fast_base, stage, staged};

/// Where the bytes are found.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// In a staging file that was closed.
    Staging,
    /// In a file that has the name of an archive to which a member comes.
    Archive,
}

/// The bytes do no harm: a round ends without an error, sound members that wait beside them are packed and can be read,
/// nothing is written beside the base, and nothing is left staged.
pub fn survives(bytes: &[u8], place: Place, case: &str) {
    let parent = fast_base();
    let base = parent.path().join("base");
    fs::create_dir_all(base.join(STAGING_DIR)).unwrap();
    let path = match place {
        Place::Archive => base.join("ar.zip"),
        Place::Staging => base.join(STAGING_DIR).join("x.closed"),
    };
    fs::write(&path, bytes).unwrap();
    stage(&base, &[("ar.zip/good", b"good"), ("other.zip/good", b"good")]);
    let report = Scavenger::open(&base, ScavengeOptions::default()).unwrap().scavenge().unwrap();
    assert!(report.errors.is_empty(), "{case}: {:?}", report.errors);
    let reader = Base::open(&base).unwrap();
    for name in ["ar.zip", "other.zip"] {
        let archive = ArchiveName::parse(name.as_bytes()).unwrap();
        let mut content = Vec::new();
        let read = reader.read(&archive, b"good", &mut |piece| {
            content.extend_from_slice(piece);
            Ok(())
        });
        assert!(read.is_ok() && content == b"good", "{case}, {archive}: {read:?}");
        // It ends, and tells of what it finds.
        let _ = reader.verify(&archive, &mut |_| {});
        let _ = reader.list(&archive, &mut |_| Ok(()));
    }
    reader.status().unwrap();
    assert_nothing_escaped(parent.path(), case);
    assert!(staged(&base, "").is_empty(), "{case}: {:?}", staged(&base, ""));
}

/// Nothing is beside the base that was not there before.
fn assert_nothing_escaped(parent: &Path, case: &str) {
    let names: Vec<_> = fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["base"], "{case}");
}
