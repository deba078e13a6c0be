//! Which root and which path in it a person means.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use keepwatch_engine::inventory::{RootRow, View};
use keepwatch_journal::{RelPath, RootName};

use crate::error::CommandError;
use crate::show::safe::Safe;

/// A root, and a path in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The root.
    pub root: RootName,
    /// The path in it; empty: all of it.
    pub path: RelPath,
}

/// Finds the root that a path lies in. What the path names need not exist any more.
///
/// # Errors
/// If it lies in none; the error names the roots that there are.
pub fn find(path: &Path, current_dir: &Path, view: &View) -> Result<Place, CommandError> {
    let roots = view.roots()?;
    // `HOST:/PATH` names what a backup tells of another host.
    let (host, path) = match of_host(path) {
        Some((host, path)) if roots.iter().any(|root| root.host.as_deref() == Some(host)) => (Some(host), path),
        _ => (None, path),
    };
    let absolute = clean(&current_dir.join(path));
    let within = |root: &RootRow| {
        if root.host.as_deref() != host {
            return None;
        }
        let dir = Path::new(std::ffi::OsStr::from_bytes(root.dir.as_deref()?));
        let rel = absolute.strip_prefix(dir).ok()?.as_os_str().as_bytes().to_vec();
        Some((dir.as_os_str().len(), Place { root: root.name.clone(), path: RelPath::new(rel).ok()? }))
    };
    let best = roots.iter().filter_map(within).max_by_key(|(len, _)| *len);
    best.map(|(_, place)| place).ok_or_else(|| {
        let dirs: Vec<String> =
            roots.iter().filter_map(|root| Some(shown(root.host.as_deref(), root.dir.as_deref()?))).collect();
        let known = if dirs.is_empty() { "none yet".to_owned() } else { dirs.join(", ") };
        CommandError::usage(format!("{} lies in no root", Safe::path(&absolute)))
            .hint(format!("the roots are: {known}"))
    })
}

fn of_host(path: &Path) -> Option<(&str, &Path)> {
    let bytes = path.as_os_str().as_bytes();
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let rest = &bytes[colon + 1..];
    let host = std::str::from_utf8(&bytes[..colon]).ok()?;
    rest.starts_with(b"/").then(|| (host, Path::new(std::ffi::OsStr::from_bytes(rest))))
}

fn shown(host: Option<&str>, dir: &[u8]) -> String {
    host.map_or_else(|| Safe(dir).to_string(), |host| format!("{}:{}", Safe::text(host), Safe(dir)))
}

/// A directory of the command line that is there, made absolute.
///
/// # Errors
/// If it is not there, or no directory.
pub fn directory(dir: &Path, context: &super::Context) -> Result<PathBuf, CommandError> {
    let dir = context.environment.current_dir.join(dir);
    let shown = Safe::path(&dir);
    match std::fs::metadata(&dir) {
        Ok(meta) if meta.is_dir() => Ok(clean(&dir)),
        Ok(_) => {
            Err(CommandError::usage(format!("{shown} is not a directory")).hint("name the directory that holds it"))
        }
        Err(error) => Err(CommandError::usage(format!("{shown} cannot be watched: {error}"))
            .hint("name a directory that is there; is its disk mounted?")),
    }
}

/// Without `.` and `..`, by the words alone: symbolic links are not followed, for the path may be of the past.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_go_and_bytes_stay() {
        assert_eq!(clean(Path::new("/a/./b/../c")), Path::new("/a/c"));
        assert_eq!(clean(Path::new("/../x")), Path::new("/x"));
    }
}
