//! Whose originals a backup holds, by where they lie in it, and when they came to be, by their names. Pure.

use crate::model::{RelPath, RootName, Timestamp};

/// A directory of a backup holds the originals of a host below a path there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// The directory, in the backup; empty: all of it.
    pub dir: RelPath,
    /// The host.
    pub host: String,
    /// The absolute path on it, as bytes.
    pub path: Box<[u8]>,
}

/// Why maps cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The text is no map.
    #[error("`{0}` is no DIR=HOST:/PATH, as in `aoc=aoc.example.org:/data`")]
    Text(String),
    /// Of one file it could not be told whose it is.
    #[error("the maps of `{one}` and `{other}` lie in one another; name each directory once")]
    Within {
        /// A directory.
        one: String,
        /// The other.
        other: String,
    },
    /// Two directories would be one path of one host.
    #[error("`{one}` and `{other}` both go to {place}; give each a path of its own")]
    Same {
        /// A directory.
        one: String,
        /// The other.
        other: String,
        /// Host and path.
        place: String,
    },
}

impl Map {
    /// Reads `DIR=HOST:/PATH`; `relative` says where in the backup a directory lies.
    ///
    /// # Errors
    /// [`MapError::Text`].
    pub fn parse(text: &[u8], relative: impl Fn(&[u8]) -> Option<RelPath>) -> Result<Map, MapError> {
        let wrong = || MapError::Text(shown(text));
        // A directory's name may hold a `=`, and so may a path: a host's name does not.
        let splits = text.iter().enumerate().filter(|(_, byte)| **byte == b'=').map(|(at, _)| at);
        let read = |at: usize| {
            let (dir, place) = (&text[..at], &text[at + 1..]);
            let colon = place.iter().position(|byte| *byte == b':')?;
            let (host, path) = (std::str::from_utf8(&place[..colon]).ok()?, &place[colon + 1..]);
            let path = match path {
                b"/" => path,
                path => path.strip_suffix(b"/").unwrap_or(path),
            };
            let is_path = path.strip_prefix(b"/").is_some_and(|rest| RelPath::new(rest).is_ok());
            (is_host(host) && is_path).then(|| (dir, host.to_owned(), path))
        };
        let (dir, host, path) = splits.into_iter().find_map(read).ok_or_else(wrong)?;
        Ok(Map { dir: relative(dir).ok_or_else(wrong)?, host, path: path.into() })
    }

    /// By which name what it tells of is known.
    #[must_use]
    pub fn root(&self) -> RootName {
        root_of(&self.host, &self.path)
    }

    /// The text that stands in front of all paths in the backup.
    #[must_use]
    pub fn base(&self) -> Vec<u8> {
        if self.dir.is_root() { Vec::new() } else { [self.dir.as_bytes(), b"/"].concat() }
    }
}

/// A word that can be a host's name.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// The name of the root that holds what a backup tells of a host below a path.
#[must_use]
pub fn root_of(host: &str, path: &[u8]) -> RootName {
    RootName::new(format!("{host}:{}", shown(path)))
}

/// Whether of every file it can be told by these maps whose it is.
///
/// # Errors
/// [`MapError`].
pub fn check(maps: &[Map]) -> Result<(), MapError> {
    for (index, one) in maps.iter().enumerate() {
        for other in &maps[..index] {
            let names = || (shown(one.dir.as_bytes()), shown(other.dir.as_bytes()));
            if one.dir.is_within(&other.dir) || other.dir.is_within(&one.dir) {
                let (one, other) = names();
                return Err(MapError::Within { one, other });
            }
            if one.root() == other.root() {
                let (place, (one, other)) = (one.root().to_string(), names());
                return Err(MapError::Same { one, other, place });
            }
        }
    }
    Ok(())
}

/// When a file came to be, if its name says so: `NAME_20240131235959123456789.ext` or `NAME_2024-01-31T235959.ext`, UTC. Fewer
/// digits of a second, or none, are as good.
#[must_use]
pub fn created_by_name(name: &[u8]) -> Option<Timestamp> {
    let name = std::str::from_utf8(name).ok()?;
    let (_, stamp) = name.rsplit_once('_')?;
    let stamp = stamp.split('.').next()?;
    let digits: String = match stamp.split_once('T') {
        Some((date, time)) => {
            let parts: Vec<&str> = date.split('-').collect();
            let [year, month, day] = parts[..] else { return None };
            let is_date = [(year, 4), (month, 2), (day, 2)].iter().all(|(part, length)| part.len() == *length);
            if !is_date || time.len() < 6 {
                return None;
            }
            [year, month, day, time].concat()
        }
        None => stamp.to_owned(),
    };
    if !(14..=23).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (date, fraction) = digits.split_at(14);
    let part = |from: usize, to: usize| &date[from..to];
    let fraction = if fraction.is_empty() { "0" } else { fraction };
    let (day, hour) = ((part(0, 4), part(4, 6), part(6, 8)), (part(8, 10), part(10, 12), part(12, 14)));
    let text = format!("{}-{}-{}T{}:{}:{}.{fraction}Z", day.0, day.1, day.2, hour.0, hour.1, hour.2);
    Timestamp::parse(text.as_bytes()).ok()
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).escape_debug().to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn map(text: &str) -> Result<Map, MapError> {
        Map::parse(text.as_bytes(), |dir| RelPath::new(dir).ok())
    }

    #[test]
    fn a_map_names_a_directory_a_host_and_a_path() {
        let read = map("aoc=aoc.example.org:/data/").unwrap();
        assert_eq!((read.host.as_str(), &*read.path), ("aoc.example.org", &b"/data"[..]));
        assert_eq!((read.root().as_str(), read.base()), ("aoc.example.org:/data", b"aoc/".to_vec()));
        assert_eq!(map("a=b/c=h:/x=y:/z").unwrap().dir.as_bytes(), b"a=b/c");
        assert_eq!(&*map("all=h:/").unwrap().path, b"/");
        for wrong in ["", "aoc", "aoc=h", "aoc=h:data", "aoc=:/data", "aoc=h:/../x", "../a=h:/x", "a=h h:/x"] {
            assert_eq!(map(wrong), Err(MapError::Text(wrong.to_owned())), "{wrong}");
        }
    }

    #[test]
    fn maps_that_leave_in_doubt_whose_a_file_is_are_refused() {
        let check = |texts: &[&str]| check(&texts.iter().map(|text| map(text).unwrap()).collect::<Vec<_>>());
        assert_eq!(check(&["aoc=a:/data", "icc=i:/srv/icc/data", "rtc=r:/srv/rtc/data", "x=a:/data2"]), Ok(()));
        assert!(matches!(check(&["a=h:/x", "a/b=h:/y"]), Err(MapError::Within { .. })));
        assert!(matches!(check(&["a=h:/x", "a=i:/y"]), Err(MapError::Within { .. })));
        assert!(matches!(check(&["a=h:/x", "b=h:/x/"]), Err(MapError::Same { .. })));
    }

    #[test]
    fn names_tell_when_a_file_came_to_be() {
        let created = |name: &str| created_by_name(name.as_bytes()).map(|at| at.to_string());
        let is = |name: &str, at: &str| assert_eq!(created(name).as_deref(), Some(at), "{name}");
        is("NAME_20240131235959123456789.ext", "2024-01-31T23:59:59.123456789Z");
        is("NAME_2024-01-31T235959.ext", "2024-01-31T23:59:59.000000000Z");
        is("a_b_20240131235959", "2024-01-31T23:59:59.000000000Z");
        is("a_202401312359595.tar.gz", "2024-01-31T23:59:59.500000000Z");
        for other in [
            "NAME.ext",
            "_.x",
            "NAME_20241331235959.ext",
            "NAME_2024013123595.ext",
            "NAME_202401312359591234567890",
            "NAME_2024-1-31T235959",
            "20240131235959.ext",
            "NAME_2024-01-31T235959Z",
        ] {
            assert_eq!(created(other), None, "{other}");
        }
    }
}
