//! What of a root is not recorded, and which names say that a file is not finished.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::{Glob, GlobSet, GlobSetBuilder};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use keepwatch_journal::RelPath;

use crate::trigger::claim::CLAIMS_DIR;

/// Names of files that their writers will still rename or add to.
const UNFINISHED: &[&str] =
    &["*.part", "*.tmp", "*.temp", "*.partial", "*.filepart", "*.crdownload", "*.download", ".#*", "~$*", ".~lock.*#"];

/// A pattern that is not one.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}` is not a pattern: {reason}")]
pub struct BadPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The rules of a root.
#[derive(Clone, Debug)]
pub struct Rules {
    ignore: Option<Gitignore>,
    own: Vec<RelPath>,
    unfinished: GlobSet,
}

impl Rules {
    /// From patterns in `.gitignore` syntax, the program's own directories below the root, and further patterns of
    /// names that say "not finished".
    ///
    /// # Errors
    /// [`BadPattern`] names the one that cannot be read.
    pub fn new(ignore: &[String], mut own: Vec<RelPath>, unfinished: &[String]) -> Result<Self, BadPattern> {
        let bad = |pattern: &str, reason: &dyn std::fmt::Display| BadPattern {
            pattern: pattern.to_owned(),
            reason: reason.to_string(),
        };
        let mut builder = GitignoreBuilder::new("");
        for pattern in ignore {
            builder.add_line(None, pattern).map_err(|error| bad(pattern, &error))?;
        }
        let ignore = match ignore {
            [] => None,
            [first, ..] => Some(builder.build().map_err(|error| bad(first, &error))?),
        };
        let mut names = GlobSetBuilder::new();
        for pattern in UNFINISHED.iter().copied().chain(unfinished.iter().map(String::as_str)) {
            names.add(Glob::new(pattern).map_err(|error| bad(pattern, &error))?);
        }
        let unfinished = names.build().map_err(|error| bad("*", &error))?;
        own.push(RelPath::ROOT.join(CLAIMS_DIR.as_bytes()));
        Ok(Rules { ignore, own, unfinished })
    }

    /// Whether what has this path is left out, by itself or because of a directory above it.
    #[must_use]
    pub fn leave_out(&self, path: &RelPath, is_dir: bool) -> bool {
        if path.is_root() {
            return false;
        }
        if self.own.iter().any(|own| path.is_within(own)) {
            return true;
        }
        self.ignore.as_ref().is_some_and(|ignore| {
            let path = Path::new(OsStr::from_bytes(path.as_bytes()));
            ignore.matched_path_or_any_parents(path, is_dir).is_ignore()
        })
    }

    /// Whether a file's name says that it is not finished.
    #[must_use]
    pub fn unfinished(&self, name: &[u8]) -> bool {
        self.unfinished.is_match(OsStr::from_bytes(name))
    }
}

/// The file beside it that says that `name` is being worked on.
#[must_use]
pub fn lock_of(name: &[u8]) -> Vec<u8> {
    [b".", name, b".lock"].concat()
}

/// The file of which `name` is the lock.
#[must_use]
pub fn locked_by(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(b".")?.strip_suffix(b".lock").filter(|rest| !rest.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn patterns_leave_out_what_is_below_too() {
        let ignore = ["*.swp".to_owned(), ".Trash/".to_owned(), "!keep.swp".to_owned()];
        let rules = Rules::new(&ignore, vec![path("state")], &[]).unwrap();
        assert!(rules.leave_out(&path("a/b.swp"), false));
        assert!(!rules.leave_out(&path("a/keep.swp"), false));
        assert!(rules.leave_out(&path("a/.Trash"), true));
        assert!(!rules.leave_out(&path("a/.Trash"), false));
        assert!(rules.leave_out(&path("a/.Trash/deep/file"), false));
        assert!(rules.leave_out(&path("state/journal/x"), false));
        assert!(!rules.leave_out(&path("stately"), false));
        assert!(rules.leave_out(&path(".keepwatch-claims/t/slots"), true));
        assert!(!rules.leave_out(&RelPath::ROOT, true));
    }

    #[test]
    fn markers() {
        let rules = Rules::new(&[], Vec::new(), &["*.busy".to_owned()]).unwrap();
        assert!(rules.unfinished(b"video.mov.part") && rules.unfinished(b"x.busy") && !rules.unfinished(b"x.mov"));
        assert_eq!(lock_of(b"data.csv"), b".data.csv.lock");
        assert_eq!(locked_by(b".data.csv.lock"), Some(&b"data.csv"[..]));
        assert_eq!(locked_by(b"..lock"), None);
        assert!(Rules::new(&[], Vec::new(), &["[".to_owned()]).is_err());
    }
}
