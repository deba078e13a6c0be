//! Which files a trigger is about: by name, size, age and kind of version.

use std::time::Duration;

use bstr::ByteSlice as _;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::model::RelPath;

/// What begins so is Keepwatch's own, in whatever directory: a claim of some host.
const OWN_PREFIX: &[u8] = b".keepwatch-";

/// By what record a version came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The file is new.
    Create,
    /// A file that was there before has other content.
    Modify,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Create => "create",
            Kind::Modify => "modify",
        }
    }

    /// The kind with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Kind> {
        [Kind::Create, Kind::Modify].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// The rules as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleText {
    /// Patterns, of which one must match; none: all files. One without a `/` is about the name in whatever directory, one with a
    /// `/` about the path from the root on, where `*` stays within a component and `**` does not.
    pub matches: Vec<String>,
    /// Patterns of what is left alone.
    pub exclude: Vec<String>,
    /// Bytes at least.
    pub size_min: Option<u64>,
    /// Bytes at most.
    pub size_max: Option<u64>,
    /// Since the last change of the content at least.
    pub age_min: Option<Duration>,
    /// And at most.
    pub age_max: Option<Duration>,
    /// Kinds of versions; none: all.
    pub kinds: Vec<Kind>,
}

/// A pattern that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pattern `{pattern}`: {why}")]
pub struct RuleError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub why: String,
}

/// Patterns, by what they are about.
#[derive(Clone, Debug)]
struct Patterns {
    names: GlobSet,
    paths: GlobSet,
}

impl Patterns {
    fn new(patterns: &[String]) -> Result<Self, RuleError> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            let wrong = |why: String| RuleError { pattern: pattern.clone(), why };
            let text = pattern.strip_prefix('/').unwrap_or(pattern);
            if text.is_empty() {
                return Err(wrong("it matches nothing".to_owned()));
            }
            let glob = GlobBuilder::new(text).literal_separator(true).build();
            let glob = glob.map_err(|error| wrong(error.kind().to_string()))?;
            if pattern.contains('/') {
                paths.add(glob)
            } else {
                names.add(glob)
            };
        }
        let build = |builder: GlobSetBuilder| {
            builder.build().map_err(|error| RuleError { pattern: patterns.join(" "), why: error.kind().to_string() })
        };
        Ok(Patterns { names: build(names)?, paths: build(paths)? })
    }

    fn match_path(&self, path: &RelPath) -> bool {
        let Some((_, name)) = path.split() else { return false };
        // On Linux bytes are a path as they stand.
        let matches = |set: &GlobSet, bytes: &[u8]| bytes.to_path().is_ok_and(|path| set.is_match(path));
        matches(&self.names, name) || matches(&self.paths, path.as_bytes())
    }
}

/// Which files a trigger is about.
#[derive(Clone, Debug)]
pub struct Rules {
    matches: Option<Patterns>,
    exclude: Patterns,
    text: RuleText,
}

impl Rules {
    /// Understands what was written.
    ///
    /// # Errors
    /// [`RuleError`] for the first pattern that cannot be understood.
    pub fn new(text: &RuleText) -> Result<Self, RuleError> {
        let matches = (!text.matches.is_empty()).then(|| Patterns::new(&text.matches)).transpose()?;
        Ok(Rules { matches, exclude: Patterns::new(&text.exclude)?, text: text.clone() })
    }

    /// Whether a path in a root is one that the trigger is about.
    #[must_use]
    pub fn match_path(&self, path: &RelPath) -> bool {
        let is_own = path.components().any(|name| name.starts_with(OWN_PREFIX));
        !is_own
            && !path.is_root()
            && self.matches.as_ref().is_none_or(|matches| matches.match_path(path))
            && !self.exclude.match_path(path)
    }

    /// Whether a version of it is: `size` in bytes.
    #[must_use]
    pub fn match_version(&self, size: u64, kind: Kind) -> bool {
        self.text.size_min.is_none_or(|min| size >= min)
            && self.text.size_max.is_none_or(|max| size <= max)
            && (self.text.kinds.is_empty() || self.text.kinds.contains(&kind))
    }

    /// How long a version has still to age before it is due, given the age of its content; `None`: it is too old.
    #[must_use]
    pub fn ripens_in(&self, age: Duration) -> Option<Duration> {
        if self.text.age_max.is_some_and(|max| age > max) {
            return None;
        }
        Some(self.text.age_min.map_or(Duration::ZERO, |min| min.saturating_sub(age)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rules(matches: &[&str], exclude: &[&str]) -> Rules {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Rules::new(&RuleText { matches: owned(matches), exclude: owned(exclude), ..RuleText::default() }).unwrap()
    }

    fn path(text: &[u8]) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn a_pattern_is_about_the_name_or_about_the_path() {
        let by_name = rules(&["*.csv"], &[]);
        assert!(by_name.match_path(&path(b"a.csv")) && by_name.match_path(&path(b"in/deep/a.csv")));
        assert!(!by_name.match_path(&path(b"a.csv.part")) && !by_name.match_path(&path(b"a.csv/x")));
        let by_path = rules(&["inbox/*.csv", "deep/**/*.csv"], &[]);
        assert!(by_path.match_path(&path(b"inbox/a.csv")) && !by_path.match_path(&path(b"inbox/b/a.csv")));
        assert!(by_path.match_path(&path(b"deep/a.csv")) && by_path.match_path(&path(b"deep/b/c/a.csv")));
        assert!(rules(&["/top.csv"], &[]).match_path(&path(b"top.csv")));
        assert!(!rules(&["/top.csv"], &[]).match_path(&path(b"in/top.csv")));
        assert!(rules(&["\u{e9}*"], &[]).match_path(&path("\u{e9}t\u{e9}".as_bytes())));
        assert!(rules(&["x*"], &[]).match_path(&path(b"x\xff\n")), "names are bytes");
    }

    #[test]
    fn what_is_excluded_or_our_own_is_left_alone() {
        let rules = rules(&[], &["out/**", "*.log"]);
        assert!(rules.match_path(&path(b"in/a")));
        assert!(!rules.match_path(&path(b"out/a")) && !rules.match_path(&path(b"in/a.log")));
        assert!(!rules.match_path(&path(b"in/.keepwatch-claim.x.a")) && !rules.match_path(&RelPath::ROOT));
    }

    #[test]
    fn a_version_is_matched_by_size_kind_and_age() {
        let text = RuleText {
            size_min: Some(2),
            size_max: Some(3),
            age_min: Some(Duration::from_secs(10)),
            age_max: Some(Duration::from_secs(60)),
            kinds: vec![Kind::Modify],
            ..RuleText::default()
        };
        let rules = Rules::new(&text).unwrap();
        assert!(rules.match_version(2, Kind::Modify) && !rules.match_version(1, Kind::Modify));
        assert!(!rules.match_version(4, Kind::Modify) && !rules.match_version(2, Kind::Create));
        let ripens = |seconds| rules.ripens_in(Duration::from_secs(seconds)).map(|wait| wait.as_secs());
        assert_eq!([ripens(0), ripens(4), ripens(10), ripens(61)], [Some(10), Some(6), Some(0), None]);
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let text = RuleText { matches: vec!["ok*".to_owned(), "a[".to_owned()], ..RuleText::default() };
        let error = Rules::new(&text).unwrap_err();
        assert_eq!(error.pattern, "a[");
        assert!(error.to_string().starts_with("the pattern `a[`: "), "{error}");
    }
}
