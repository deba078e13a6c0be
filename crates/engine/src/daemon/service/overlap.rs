//! Roots must not overlap: every change would be recorded twice.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use keepwatch_journal::RelPath;
use rustix::fs::stat;

use crate::daemon::rules::Rules;
use crate::daemon::settings::RootSettings;

/// Checks every pair of roots, by path and by what is there. `Err` names the pair and the remedy.
pub(super) fn check(roots: &[RootSettings]) -> Result<(), String> {
    let real: Vec<PathBuf> =
        roots.iter().map(|root| root.path.canonicalize().unwrap_or_else(|_| root.path.clone())).collect();
    for (index, (outer, outer_path)) in roots.iter().zip(&real).enumerate() {
        for (other, (inner, inner_path)) in roots.iter().zip(&real).enumerate() {
            if index == other {
                continue;
            }
            if same_object(outer_path, inner_path) {
                return Err(format!(
                    "roots `{}` ({}) and `{}` ({}) are the same directory: remove one of them",
                    outer.name,
                    outer.path.display(),
                    inner.name,
                    inner.path.display()
                ));
            }
            if let Some(below) = place_within(outer_path, inner_path)
                && !ignores(outer, &below)
            {
                let at = String::from_utf8_lossy(below.as_bytes()).into_owned();
                return Err(format!(
                    "root `{}` ({}) lies inside root `{}` ({}): add `ignore = [\"/{at}/\"]` to `{}`, or remove one of \
                     them",
                    inner.name,
                    inner.path.display(),
                    outer.name,
                    outer.path.display(),
                    outer.name,
                ));
            }
        }
    }
    Ok(())
}

fn ignores(outer: &RootSettings, below: &RelPath) -> bool {
    Rules::new(&outer.ignore, Vec::new(), &[]).is_ok_and(|rules| rules.leave_out(below, true))
}

fn same_object(one: &Path, other: &Path) -> bool {
    matches!((stat(one), stat(other)), (Ok(one), Ok(other)) if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Where `inner` is below `outer`: by its path, or because a directory above it is `outer` or one below it, seen
/// through a bind mount.
fn place_within(outer: &Path, inner: &Path) -> Option<RelPath> {
    if let Ok(rel) = inner.strip_prefix(outer) {
        return RelPath::new(rel.as_os_str().as_bytes()).ok().filter(|rel| !rel.is_root());
    }
    bound_within(outer, inner)
}

/// Through mountinfo: a bind mount shows a directory of a file system at a second place.
fn bound_within(outer: &Path, inner: &Path) -> Option<RelPath> {
    let mounts = crate::watch::mounts::mounts().ok()?;
    let on_disk = |path: &Path| {
        let mount = mounts
            .iter()
            .filter(|mount| path.starts_with(Path::new(std::ffi::OsStr::from_bytes(&mount.mount_point))))
            .max_by_key(|mount| mount.mount_point.len())?;
        let below = path.strip_prefix(Path::new(std::ffi::OsStr::from_bytes(&mount.mount_point))).ok()?;
        let mut place = PathBuf::from(std::ffi::OsStr::from_bytes(&mount.root));
        place.push(below);
        Some((mount.dev, place))
    };
    let (outer_dev, outer_place) = on_disk(outer)?;
    let (inner_dev, inner_place) = on_disk(inner)?;
    if outer_dev != inner_dev {
        return None;
    }
    let rel = inner_place.strip_prefix(&outer_place).ok()?;
    RelPath::new(rel.as_os_str().as_bytes()).ok().filter(|rel| !rel.is_root())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use keepwatch_journal::RootName;

    use super::*;
    use crate::daemon::settings::PollEvery;
    use crate::watch::probe::Forced;

    fn root(name: &str, path: &Path, ignore: &[&str]) -> RootSettings {
        RootSettings {
            name: RootName::new(name),
            path: path.to_owned(),
            ignore: ignore.iter().map(|&pattern| pattern.to_owned()).collect(),
            unfinished: Vec::new(),
            method: Forced::Auto,
            poll: PollEvery::Never,
            settle: Duration::from_secs(60),
            settle_min: Duration::ZERO,
            open_max: Duration::from_secs(3600),
            lease: true,
            copies_min: 0,
            scrubbing: crate::daemon::settings::Scrubbing::default(),
        }
    }

    #[test]
    fn the_same_and_nested_roots_are_refused_unless_the_outer_ignores_the_inner() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("in/ner");
        std::fs::create_dir_all(&inner).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&inner, &link).unwrap();
        let (a, b) = (root("a", dir.path(), &[]), root("b", &inner, &[]));
        let message = check(&[b.clone(), a]).unwrap_err();
        assert!(message.contains("`b`") && message.contains("ignore = [\"/in/ner/\"]"), "{message}");
        assert!(check(&[root("a", dir.path(), &["/in/ner/"]), b.clone()]).is_ok());
        assert!(check(&[b, root("l", &link, &[])]).unwrap_err().contains("same directory"));
    }
}
