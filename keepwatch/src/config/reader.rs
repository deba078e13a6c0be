//! Reads one TOML table key by key: each value comes with its file and line, and a key that nobody asked for is an
//! error that names the nearest known one.

use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Origin, Problem, Sourced};
use crate::units;

/// A file that is being read.
#[derive(Clone, Copy, Debug)]
pub struct SourceFile<'a> {
    /// Its path.
    pub path: &'a Path,
    /// What stands in it.
    pub text: &'a str,
}

impl SourceFile<'_> {
    /// The place of a byte in it.
    #[must_use]
    pub fn origin(&self, offset: usize) -> Origin {
        let before = self.text.get(..offset).unwrap_or(self.text);
        Origin::File { path: self.path.to_owned(), line: 1 + before.bytes().filter(|byte| *byte == b'\n').count() }
    }
}

/// A table that is being read.
#[derive(Debug)]
pub struct Table<'a> {
    file: SourceFile<'a>,
    /// Its dotted name for messages; empty at the top.
    name: String,
    table: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// The top of a file.
    #[must_use]
    pub fn top(file: SourceFile<'a>, table: &'a DeTable<'a>) -> Self {
        Table { file, name: String::new(), table, known: Vec::new() }
    }

    /// The tables below this one, each with its key and place; what is no table is a problem.
    pub fn children(&self, problems: &mut Vec<Problem>) -> Vec<(Sourced<String>, Table<'a>)> {
        let mut children = Vec::new();
        for (key, value) in self.table {
            let origin = self.file.origin(key.span().start);
            let name = self.dotted(key.get_ref());
            match value.get_ref() {
                DeValue::Table(table) => {
                    let child = Table { file: self.file, name, table, known: Vec::new() };
                    children.push((Sourced { value: key.get_ref().to_string(), origin }, child));
                }
                other => problems.push(Problem::new(origin, mismatch(&name, "a table", other))),
            }
        }
        children
    }

    /// The table under `key`.
    pub fn table(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<Table<'a>> {
        self.table_with_origin(key, problems).map(|(table, _)| table)
    }

    /// The table under `key`, and where it begins.
    pub fn table_with_origin(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<(Table<'a>, Origin)> {
        let (value, origin) = self.take(key)?;
        match value {
            DeValue::Table(table) => {
                Some((Table { file: self.file, name: self.dotted(key), table, known: Vec::new() }, origin))
            }
            other => {
                problems.push(Problem::new(origin, mismatch(&self.dotted(key), "a table", other)));
                None
            }
        }
    }

    /// The tables of the list under `key`, written as `[[key]]`, each with where it begins.
    pub fn tables(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Vec<(Table<'a>, Origin)> {
        let Some((value, origin)) = self.take(key) else { return Vec::new() };
        let DeValue::Array(items) = value else {
            let mismatch = mismatch(&self.dotted(key), "a list of tables", value);
            problems.push(Problem::new(origin, mismatch).hint(format!("write [[{key}]]")));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for item in items {
            let origin = self.file.origin(item.span().start);
            match item.get_ref() {
                DeValue::Table(table) => {
                    let name = self.dotted(key);
                    tables.push((Table { file: self.file, name, table, known: Vec::new() }, origin));
                }
                other => problems.push(Problem::new(origin, mismatch(&self.dotted(key), "a list of tables", other))),
            }
        }
        tables
    }

    /// A string that `parse` understands.
    pub fn parsed<T, E: std::fmt::Display>(
        &mut self,
        key: &'static str,
        problems: &mut Vec<Problem>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Sourced<T>> {
        let (value, origin) = self.take(key)?;
        let DeValue::String(text) = value else {
            problems.push(Problem::new(origin, mismatch(&self.dotted(key), "a string", value)));
            return None;
        };
        match parse(text) {
            Ok(value) => Some(Sourced { value, origin }),
            Err(error) => {
                problems.push(Problem::new(origin, format!("{}: {error}", self.dotted(key))));
                None
            }
        }
    }

    /// A string.
    pub fn string(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<Sourced<String>> {
        self.parsed(key, problems, |text| Ok::<_, std::convert::Infallible>(text.to_owned()))
    }

    /// A list of strings.
    pub fn strings(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<Sourced<Vec<String>>> {
        let (value, origin) = self.take(key)?;
        let DeValue::Array(items) = value else {
            problems.push(Problem::new(origin, mismatch(&self.dotted(key), "a list of strings", value)));
            return None;
        };
        let mut strings = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::String(text) => strings.push(text.to_string()),
                other => {
                    let origin = self.file.origin(item.span().start);
                    problems.push(Problem::new(origin, mismatch(&self.dotted(key), "a list of strings", other)));
                    return None;
                }
            }
        }
        Some(Sourced { value: strings, origin })
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<Sourced<bool>> {
        let (value, origin) = self.take(key)?;
        match value {
            DeValue::Boolean(value) => Some(Sourced { value: *value, origin }),
            other => {
                problems.push(Problem::new(origin, mismatch(&self.dotted(key), "true or false", other)));
                None
            }
        }
    }

    /// A duration such as `"10m"`.
    pub fn duration(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<Sourced<Duration>> {
        self.parsed(key, problems, units::parse_duration)
    }

    /// A size such as `"10Mi"`, or a plain number of bytes.
    pub fn size(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<Sourced<u64>> {
        match self.table.get(key).map(Spanned::get_ref) {
            Some(DeValue::Integer(_)) => self.count(key, problems),
            _ => self.parsed(key, problems, units::parse_size),
        }
    }

    /// A whole number, not negative.
    pub fn count(&mut self, key: &'static str, problems: &mut Vec<Problem>) -> Option<Sourced<u64>> {
        let (value, origin) = self.take(key)?;
        let number = match value {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        if number.is_none() {
            problems
                .push(Problem::new(origin.clone(), mismatch(&self.dotted(key), "a whole number, not negative", value)));
        }
        Some(Sourced { value: number?, origin })
    }

    /// Ends the reading: every key left is a problem. Those in `later` belong to features that this version lacks.
    pub fn finish(self, later: &[&str], problems: &mut Vec<Problem>) {
        for (key, _) in self.table {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let origin = self.file.origin(key.span().start);
            let dotted = self.dotted(name);
            if later.contains(&name) {
                let problem = Problem::new(origin, format!("`{dotted}` is not supported by this version of keepwatch"));
                problems.push(problem.hint(format!("remove `{dotted}`: it would have no effect")));
                continue;
            }
            let problem = Problem::new(origin, format!("unknown key `{dotted}`"));
            problems.push(match nearest(name, self.known.iter().copied()) {
                Some(known) => problem.hint(format!("did you mean `{known}` instead of `{name}`?")),
                None => problem.hint(format!("known keys here: {}", self.known.join(", "))),
            });
        }
    }

    fn take(&mut self, key: &'static str) -> Option<(&'a DeValue<'a>, Origin)> {
        self.known.push(key);
        let (key, value) = self.table.get_key_value(key)?;
        Some((value.get_ref(), self.file.origin(key.span().start)))
    }

    fn dotted(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

fn mismatch(key: &str, wanted: &str, found: &DeValue<'_>) -> String {
    format!("`{key}` must be {wanted}, not {} {}", article(found.type_str()), found.type_str())
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// The known word that is most like `word`, if any is near enough to be what was meant.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}
