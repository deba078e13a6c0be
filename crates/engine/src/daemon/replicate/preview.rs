//! What a first comparison would lead to, without a journal, an inventory or a mark: by what lies at both places now.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crossbeam_channel::{Receiver, bounded};

use super::settings::{ReplicaSettings, SettingsError};
use super::streams::path_of;
use super::{KeptRoot, kept_roots};
use crate::inventory::copy_key;
use crate::model::{FileType, RelPath, Seq};
use crate::sync::filter::Filter;
use crate::sync::layout::Placement;
use crate::sync::plan::{Merge, Need, Original, need};
use crate::target::{Found, LocalTarget, Target, TargetError};

/// Found things that may wait for the merge.
const FOUND_MAX: usize = 4_096;

type Stream = Receiver<(Vec<u8>, Found)>;

/// Why a comparison was not made.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// It cannot be kept as it was written.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// One of the places cannot be listed.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// Tells for each object that would be copied where it is and where it would go at the target. What would be deleted is not
/// told.
///
/// # Errors
/// [`PreviewError`].
pub fn preview(settings: &ReplicaSettings, each: &mut dyn FnMut(&Path, &RelPath)) -> Result<(), PreviewError> {
    let target = &*settings.target;
    for KeptRoot { path: root, placement, filter, .. } in &kept_roots(settings, &settings.layout)? {
        let all = |path: &RelPath| Some(path.clone());
        let placed = |path: &RelPath| placement.path_of(path);
        std::thread::scope(|scope| {
            let (tell, sources) = bounded(FOUND_MAX);
            let source = scope.spawn(move || list(&LocalTarget::new(root), &RelPath::ROOT, &all, &tell));
            let (tell, targets) = bounded(FOUND_MAX);
            let target_thread = scope.spawn(move || list(target, &placement.dir(), &placed, &tell));
            compare((root, placement, filter), (sources, targets), target.nature().mtime_step_ns, each);
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<(), TargetError>>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            join(source).and(join(target_thread))
        })?;
    }
    Ok(())
}

fn list(
    place: &dyn Target,
    below: &RelPath,
    name: &dyn Fn(&RelPath) -> Option<RelPath>,
    tell: &crossbeam_channel::Sender<(Vec<u8>, Found)>,
) -> Result<(), TargetError> {
    place.survey(below, &mut |path, found| {
        let Some(path) = name(path) else { return ControlFlow::Continue(()) };
        match tell.send((copy_key(&path, found.kind), found)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })
}

fn compare(
    (root, placement, filter): (&Path, &Placement, &Filter),
    (sources, targets): (Stream, Stream),
    step_ns: i64,
    each: &mut dyn FnMut(&Path, &RelPath),
) {
    let seen = targets.into_iter().map(|(key, found)| (key, seen_of(found)));
    for side in Merge::new(sources.into_iter(), std::iter::empty::<(Vec<u8>, ())>(), seen) {
        let (Some(found), Some(path)) = (side.original, path_of(&side.key)) else { continue };
        let original = original_of(found);
        if !filter.keeps(root.as_os_str().as_bytes(), &path, original.kind == FileType::Dir) {
            continue;
        }
        let what = need(Some(&original), None, Some(side.seen.as_ref()), step_ns);
        if original.kind != FileType::Dir && what == Need::Content {
            each(&root.join(OsStr::from_bytes(path.as_bytes())), &placement.place(&path));
        }
    }
}

fn seen_of(found: Found) -> crate::sync::plan::Seen {
    let Found { kind, size, mtime_ns, target } = found;
    crate::sync::plan::Seen { kind, size, mtime_ns, target }
}

fn original_of(found: Found) -> Original {
    Original {
        file: 0,
        kind: found.kind,
        size: found.size,
        mtime_ns: found.mtime_ns,
        inode: 0,
        nlink: 1,
        target: found.target.map(Vec::into_boxed_slice),
        version: Seq::ZERO,
        last: Seq::ZERO,
        is_settled: true,
    }
}
