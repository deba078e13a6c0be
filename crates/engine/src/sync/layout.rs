//! Where an original goes at a target. Pure: text in, text out.
//!
//! Prefixes are text, as people of object stores know them: `source_prefix` is cut from the front of the absolute path,
//! `target_prefix` is put in front of what is left, and nothing is normalised. What is left may begin with a `/`, if the
//! prefix had none at its end: a directory joins it away, an object store drops it, and the rest take it as it is.

use crate::model::RelPath;

/// Where originals go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `HOST/ABSOLUTE PATH`: one place for many hosts.
    Hosts {
        /// The host's name.
        host: String,
    },
    /// The absolute path, with another beginning.
    Mirror {
        /// What is cut from the front.
        source_prefix: Vec<u8>,
        /// What is put in front.
        target_prefix: Vec<u8>,
    },
}

/// Why a layout cannot be used for a root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The prefix is that of a part of the root only.
    #[error(
        "the source prefix `{prefix}` goes further than `{root}/`: give the directory that it names as the source, or a \
         shorter prefix"
    )]
    TooDeep {
        /// The prefix.
        prefix: String,
        /// The root.
        root: String,
    },
    /// Text that no path at a target can have.
    #[error("`{text}` cannot be a place at the target: it has a `.` or `..` component")]
    NoPlace {
        /// The text.
        text: String,
    },
}

impl Layout {
    /// Where an original goes, as text.
    #[must_use]
    pub fn text(&self, absolute: &[u8]) -> Vec<u8> {
        match self {
            Layout::Hosts { host } => [host.as_bytes(), absolute].concat(),
            Layout::Mirror { source_prefix, target_prefix } => {
                let rest = absolute.strip_prefix(&source_prefix[..]).unwrap_or(absolute);
                [&target_prefix[..], rest].concat()
            }
        }
    }

    /// Whether a `/` is left in front though a prefix was cut, which the user should hear of.
    #[must_use]
    pub fn leaves_slash(&self, absolute: &[u8]) -> bool {
        match self {
            Layout::Hosts { .. } => false,
            Layout::Mirror { source_prefix, .. } => {
                !source_prefix.is_empty()
                    && absolute.strip_prefix(&source_prefix[..]).is_some_and(|rest| rest.starts_with(b"/"))
            }
        }
    }

    /// Where a root's objects go below a directory or on a host.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn placement(&self, root: &[u8]) -> Result<Placement, LayoutError> {
        let shown = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let top = if root.ends_with(b"/") { root.to_vec() } else { [root, b"/"].concat() };
        if let Layout::Mirror { source_prefix, .. } = self
            && source_prefix.len() > top.len()
            && source_prefix.starts_with(&top)
        {
            return Err(LayoutError::TooDeep { prefix: shown(source_prefix), root: shown(root) });
        }
        let text = self.text(&top);
        // Below a directory slashes join: one is as good as many, and those in front lead nowhere else.
        let mut base = Vec::with_capacity(text.len());
        for byte in text.iter().copied() {
            if byte != b'/' || base.last().is_some_and(|last| *last != b'/') {
                base.push(byte);
            }
        }
        let is_sound = RelPath::new([&base[..], b"x"].concat()).is_ok();
        if is_sound { Ok(Placement { base }) } else { Err(LayoutError::NoPlace { text: shown(&text) }) }
    }
}

/// Where a root's objects go: their paths in the root behind this text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    base: Vec<u8>,
}

impl Placement {
    /// Behind this text, which ends a directory's name or is empty.
    #[must_use]
    pub fn behind(base: &[u8]) -> Placement {
        Placement { base: base.to_vec() }
    }

    /// Where the object goes that has this path in its root.
    #[must_use]
    pub fn place(&self, path: &RelPath) -> RelPath {
        // The base was tried with a name behind it, and a path is such names.
        let joined = RelPath::new([&self.base[..], path.as_bytes()].concat());
        joined.unwrap_or_else(|_| RelPath::new(self.base.strip_suffix(b"/").unwrap_or(&self.base)).unwrap_or_default())
    }

    /// The text behind which all go.
    #[must_use]
    pub fn base(&self) -> &[u8] {
        &self.base
    }

    /// Which path in the root goes there; `None`: none does.
    #[must_use]
    pub fn path_of(&self, place: &RelPath) -> Option<RelPath> {
        let rest = place.as_bytes().strip_prefix(&self.base[..])?;
        RelPath::new(rest).ok().filter(|path| !path.is_root())
    }

    /// The directory that holds all of them.
    #[must_use]
    pub fn dir(&self) -> RelPath {
        match self.base.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => RelPath::new(&self.base[..slash]).unwrap_or_default(),
            None => RelPath::ROOT,
        }
    }

    /// Whether two roots would go to the same place, or one into the other.
    #[must_use]
    pub fn overlaps(&self, other: &Placement) -> bool {
        self.base.starts_with(&other.base) || other.base.starts_with(&self.base)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ROOT: &[u8] = b"/home/u/mystuff";
    const FILES: [&str; 4] = ["1", "2", "a/2", "a/b/3"];

    fn mirror(source_prefix: &str, target_prefix: &str) -> Layout {
        Layout::Mirror { source_prefix: source_prefix.into(), target_prefix: target_prefix.into() }
    }

    fn text(layout: &Layout, path: &str) -> String {
        String::from_utf8(layout.text(format!("/home/u/mystuff/{path}").as_bytes())).unwrap()
    }

    fn place(layout: &Layout, path: &str) -> String {
        let placement = layout.placement(ROOT).unwrap();
        let place = placement.place(&RelPath::new(path).unwrap());
        assert_eq!(placement.path_of(&place).unwrap().as_bytes(), path.as_bytes());
        assert!(place.is_within(&placement.dir()));
        String::from_utf8(place.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn prefixes_are_text() {
        for file in FILES {
            assert_eq!(text(&mirror("", ""), file), format!("/home/u/mystuff/{file}"));
            assert_eq!(text(&mirror("/home/", ""), file), format!("u/mystuff/{file}"));
            assert_eq!(text(&mirror("/home/u/mystuff/", ""), file), file);
            assert_eq!(text(&mirror("/home/u/mystuff", ""), file), format!("/{file}"));
            assert_eq!(text(&mirror("/home/u/mystuff/", "/foo/bar/"), file), format!("/foo/bar/{file}"));
            assert_eq!(text(&mirror("/elsewhere", ""), file), format!("/home/u/mystuff/{file}"));
            assert_eq!(text(&Layout::Hosts { host: "h".to_owned() }, file), format!("h/home/u/mystuff/{file}"));
        }
    }

    #[test]
    fn below_a_directory_slashes_join() {
        for file in FILES {
            assert_eq!(place(&mirror("", ""), file), format!("home/u/mystuff/{file}"));
            assert_eq!(place(&mirror("/home/", ""), file), format!("u/mystuff/{file}"));
            assert_eq!(place(&mirror("/home/u/mystuff/", ""), file), file);
            assert_eq!(place(&mirror("/home/u/mystuff", ""), file), file);
            assert_eq!(place(&mirror("/home/u/my", ""), file), format!("stuff/{file}"));
            assert_eq!(place(&mirror("/home/u/mystuff/", "/foo/bar/"), file), format!("foo/bar/{file}"));
            assert_eq!(place(&mirror("/home/u/mystuff/", "/foo/bar"), file), format!("foo/bar{file}"));
            assert_eq!(place(&mirror("", "/foo//"), file), format!("foo/home/u/mystuff/{file}"));
            assert_eq!(place(&Layout::Hosts { host: "h".to_owned() }, file), format!("h/home/u/mystuff/{file}"));
        }
    }

    #[test]
    fn a_slash_that_is_left_is_told() {
        assert!(mirror("/home/u/mystuff", "").leaves_slash(b"/home/u/mystuff/1"));
        assert!(!mirror("/home/u/mystuff/", "").leaves_slash(b"/home/u/mystuff/1"));
        assert!(!mirror("", "").leaves_slash(b"/home/u/mystuff/1"));
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        assert!(matches!(mirror("/home/u/mystuff/a/", "").placement(ROOT), Err(LayoutError::TooDeep { .. })));
        assert!(matches!(mirror("", "../x").placement(ROOT), Err(LayoutError::NoPlace { .. })));
        assert!(mirror("", "").placement(b"/").is_ok());
    }

    #[test]
    fn roots_that_would_mix_are_told() {
        let of = |root: &[u8], layout: &Layout| layout.placement(root).unwrap();
        let plain = mirror("", "");
        assert!(!of(b"/a", &plain).overlaps(&of(b"/b", &plain)));
        assert!(of(b"/a", &mirror("/a/", "")).overlaps(&of(b"/b", &mirror("/b/", ""))));
    }
}
