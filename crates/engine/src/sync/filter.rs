//! Which originals a replica is to hold: regular expressions on absolute paths, as Python's `re.match` takes them, and rules
//! as rclone knows them, on paths in the root. Pure.

use crate::model::RelPath;

/// What a person wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterText {
    /// Only what one of these matches, on its absolute path, from the start.
    pub source_filter: Vec<String>,
    /// Nothing that one of these matches.
    pub source_exclude: Vec<String>,
    /// Rules, the first that fits decides: `+ PATTERN` or `- PATTERN`.
    pub rules: Vec<String>,
}

impl FilterText {
    /// Whether it keeps everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.source_filter.is_empty() && self.source_exclude.is_empty() && self.rules.is_empty()
    }

    /// Adds what `include`, `exclude` and `filter` say, in the order in which rclone takes them: what is not included is
    /// excluded once anything is.
    pub fn add_rules(&mut self, include: &[String], exclude: &[String], filter: &[String]) {
        self.rules.extend(include.iter().map(|pattern| format!("+ {pattern}")));
        self.rules.extend(exclude.iter().map(|pattern| format!("- {pattern}")));
        self.rules.extend(filter.iter().cloned());
        if !include.is_empty() {
            self.rules.push("- **".to_owned());
        }
    }
}

/// What cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{text}`: {why}")]
pub struct FilterError {
    /// The kind of text.
    what: &'static str,
    /// The text.
    text: String,
    /// What is wrong with it.
    why: String,
}

/// A filter that is ready.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    only: Vec<fancy_regex::Regex>,
    not: Vec<fancy_regex::Regex>,
    rules: Vec<Rule>,
    is_selective: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    includes: bool,
    /// Of an included directory's own rule: it says nothing of files.
    is_of_dirs: bool,
    pattern: regex::bytes::Regex,
}

impl Filter {
    /// Compiles it.
    ///
    /// # Errors
    /// The text that cannot be understood.
    pub fn new(text: &FilterText) -> Result<Self, FilterError> {
        let compile = |what: &'static str, texts: &[String]| {
            let one = |text: &String| {
                fancy_regex::Regex::new(&format!(r"\A(?:{text})")).map_err(|error| FilterError {
                    what,
                    text: text.clone(),
                    why: error.to_string(),
                })
            };
            texts.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        let mut rules = Vec::new();
        for rule in &text.rules {
            rules.extend(read_rule(rule)?);
        }
        let excludes_the_rest = text.rules.iter().any(|rule| matches!(rule.trim(), "- *" | "- **" | "- /**"));
        Ok(Filter {
            only: compile("the regular expression", &text.source_filter)?,
            not: compile("the regular expression", &text.source_exclude)?,
            rules,
            is_selective: !text.source_filter.is_empty() || excludes_the_rest,
        })
    }

    /// Whether directories are made only for what goes into them.
    #[must_use]
    pub fn is_selective(&self) -> bool {
        self.is_selective
    }

    /// Whether an object is to be held. `root` is its root's absolute path.
    #[must_use]
    pub fn keeps(&self, root: &[u8], path: &RelPath, is_dir: bool) -> bool {
        if is_dir && self.is_selective {
            return false;
        }
        if !self.only.is_empty() || !self.not.is_empty() {
            let end = if is_dir { "/" } else { "" };
            let root = root.strip_suffix(b"/").unwrap_or(root);
            let absolute = [root, b"/", path.as_bytes()].concat();
            // What is not UTF-8 is matched as people see it.
            let absolute = String::from_utf8_lossy(&absolute);
            let matches = |regex: &fancy_regex::Regex, in_doubt: bool| {
                regex.is_match(&absolute).unwrap_or(in_doubt)
                    || (is_dir && regex.is_match(&format!("{absolute}{end}")).unwrap_or(in_doubt))
            };
            // A match that takes too long leaves a doubt, and in doubt a file is copied.
            if !self.only.is_empty() && !self.only.iter().any(|regex| matches(regex, true)) {
                return false;
            }
            if self.not.iter().any(|regex| matches(regex, false)) {
                return false;
            }
        }
        if self.rules.is_empty() {
            return true;
        }
        let text = if is_dir { [path.as_bytes(), b"/"].concat() } else { path.as_bytes().to_vec() };
        let fits = |rule: &&Rule| (is_dir || !rule.is_of_dirs) && rule.pattern.is_match(&text);
        self.rules.iter().find(fits).is_none_or(|rule| rule.includes)
    }
}

/// A line of rules; comments and empty lines are none.
fn read_rule(line: &str) -> Result<Option<Rule>, FilterError> {
    let wrong = |why: &str| FilterError { what: "the rule", text: line.to_owned(), why: why.to_owned() };
    let trimmed = line.trim();
    if trimmed.is_empty() || trimmed.starts_with('#') || trimmed.starts_with(';') {
        return Ok(None);
    }
    let (includes, pattern) = match (trimmed.strip_prefix("+ "), trimmed.strip_prefix("- ")) {
        (Some(pattern), _) => (true, pattern.trim()),
        (_, Some(pattern)) => (false, pattern.trim()),
        _ => return Err(wrong("a rule is `+ PATTERN` or `- PATTERN`")),
    };
    if pattern.is_empty() {
        return Err(wrong("it has no pattern"));
    }
    let is_of_dirs = includes && pattern.ends_with('/');
    // To leave out a directory is to leave out all that is in it.
    let whole = if pattern.ends_with('/') && !includes { format!("{pattern}**") } else { pattern.to_owned() };
    let regex = glob_to_regex(&whole).map_err(|why| wrong(&why))?;
    let pattern = regex::bytes::Regex::new(&regex).map_err(|error| wrong(&error.to_string()))?;
    Ok(Some(Rule { includes, is_of_dirs, pattern }))
}

/// rclone's patterns: `*` within a component, `**` across, `?`, `[class]`, `{a,b}`, `{{regex}}`, a leading `/` for the root.
/// <https://rclone.org/filtering/>
fn glob_to_regex(glob: &str) -> Result<String, String> {
    let mut out = String::from("(?s-u)");
    let mut rest = glob;
    match rest.strip_prefix('/') {
        Some(anchored) => {
            out.push('^');
            rest = anchored;
        }
        None => out.push_str("(?:^|/)"),
    }
    let mut braces = 0;
    while let Some(first) = rest.chars().next() {
        let mut used = first.len_utf8();
        match first {
            '*' if rest.starts_with("**") => {
                used = rest.len() - rest.trim_start_matches('*').len();
                if used > 2 {
                    return Err("too many stars".to_owned());
                }
                out.push_str(".*");
            }
            '*' => out.push_str("[^/]*"),
            '?' => out.push_str("[^/]"),
            '[' => {
                let end = rest[1..].find(']').ok_or("a `[` is not closed")? + 1;
                out.push_str(&rest[..=end]);
                used = end + 1;
            }
            '{' if rest.starts_with("{{") => {
                let end = rest.find("}}").ok_or("a `{{` is not closed")?;
                out.push_str(&format!("(?:{})", &rest[2..end]));
                used = end + 2;
            }
            '{' => {
                braces += 1;
                out.push_str("(?:");
            }
            '}' if braces > 0 => {
                braces -= 1;
                out.push(')');
            }
            ',' if braces > 0 => out.push('|'),
            '\\' => {
                let escaped = rest[1..].chars().next().ok_or("nothing stands behind the last `\\`")?;
                used += escaped.len_utf8();
                out.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4])));
            }
            plain => out.push_str(&regex::escape(plain.encode_utf8(&mut [0; 4]))),
        }
        rest = &rest[used..];
    }
    if braces > 0 {
        return Err("a `{` is not closed".to_owned());
    }
    out.push('$');
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn filter(only: &[&str], not: &[&str], rules: &[&str]) -> Filter {
        let all = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let text = FilterText { source_filter: all(only), source_exclude: all(not), rules: all(rules) };
        Filter::new(&text).unwrap()
    }

    fn keeps(filter: &Filter, path: &str) -> bool {
        let (path, is_dir) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
        filter.keeps(b"/srv/data", &RelPath::new(path).unwrap(), is_dir)
    }

    #[test]
    fn regular_expressions_match_from_the_start_of_the_absolute_path() {
        let only = filter(&[r"/srv/data/.*\.jpg$"], &[r"/srv/data/private"], &[]);
        assert!(keeps(&only, "a/b.jpg") && !keeps(&only, "a/b.jpg.txt") && !keeps(&only, "private/x.jpg"));
        assert!(!keeps(&filter(&["data/"], &[], &[]), "x"), "not from the start");
        let look = filter(&[], &[r"(?!.*\.csv$)/srv/data/in/"], &[]);
        assert!(keeps(&look, "in/a.csv") && !keeps(&look, "in/a.txt") && keeps(&look, "out/a.txt"));
        assert!(!keeps(&look, "in/"), "a directory is what begins with it");
        assert!(Filter::new(&FilterText { source_filter: vec!["(".to_owned()], ..FilterText::default() }).is_err());
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules =
            filter(&[], &[], &["# comment", "+ /keep/*.tmp", "- *.tmp", "- /cache/", "- {a,b}.log", "- x[0-9]?"]);
        assert!(keeps(&rules, "keep/a.tmp") && !keeps(&rules, "keep/deep/a.tmp") && !keeps(&rules, "a.tmp"));
        assert!(!keeps(&rules, "cache/x") && !keeps(&rules, "cache/") && keeps(&rules, "my/cache/x"));
        assert!(!keeps(&rules, "d/a.log") && keeps(&rules, "d/c.log") && !keeps(&rules, "x1y") && keeps(&rules, "x1"));
        assert!(!keeps(&filter(&[], &[], &["- {{.*z+}}"]), "q/azz"));
        let only = filter(&[], &[], &["+ *.jpg", "- *"]);
        assert!(keeps(&only, "a/b.jpg") && !keeps(&only, "a/b.txt") && !keeps(&only, "a/"));
        for wrong in ["*.jpg", "+ ", "- [a", "- {a", "- a***"] {
            let text = FilterText { rules: vec![wrong.to_owned()], ..FilterText::default() };
            assert!(Filter::new(&text).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_of_any_bytes_are_matched() {
        let rules = filter(&[], &[], &["- *.bad"]);
        let path = RelPath::new(&b"a/\xff\n.bad"[..]).unwrap();
        assert!(!rules.keeps(b"/r", &path, false));
    }
}
