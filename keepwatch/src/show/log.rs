//! A line of `keepwatch log`, and of `keepwatch watch`: one record for people, or the record as it stands.

use std::fmt;
use std::io::{self, Write};

use keepwatch_journal::{Body, By, Change, Drift, FileType, Record, RelPath, ReplicaName, Unsound, Unsoundness};

use super::safe::Safe;
use crate::units::{count, human_size};

/// Writes the record as it stands in the journal, as one line of JSON.
///
/// # Errors
/// If `out` cannot be written.
pub fn write_json(record: &Record, line: &mut Vec<u8>, out: &mut dyn Write) -> io::Result<()> {
    line.clear();
    record.render(line);
    line.push(b'\n');
    out.write_all(line)
}

/// A record for people: time (UTC), what, where (`old → new`), what was found there, who did it.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a>(pub &'a Record);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.0.at.to_string();
        // Milliseconds are enough to read; the record has the rest.
        let at = at.get(..23).unwrap_or(&at);
        write!(f, "{at}Z  ")?;
        match &self.0.body {
            Body::Change(change) => show_change(change, f),
            Body::Settled(settled) => {
                let place = Place(settled.root.as_str(), &settled.path);
                write!(f, "settled  {place}  {} ({})", human_size(settled.size), settled.evidence.as_str())
            }
            Body::Gap(gap) => {
                let root = gap.root.as_ref().map_or("*", |root| root.as_str());
                write!(f, "gap      {}  {}", Place(root, &gap.path), gap.reason.as_str())?;
                gap.note.iter().try_for_each(|note| write!(f, ": {}", Safe::text(note)))
            }
            Body::GapClosed(closed) => {
                let root = closed.root.as_ref().map_or("*", |root| root.as_str());
                write!(
                    f,
                    "gap {} closed  {}:  {} looked at, {} found changed",
                    closed.gap,
                    Safe::text(root),
                    closed.scanned,
                    closed.found
                )
            }
            Body::Config(config) => {
                let root = Safe::text(config.root.as_str());
                match &config.dir {
                    Some(dir) => write!(f, "config   {root}:  watched at {}", Safe(dir))?,
                    None => write!(f, "config   {root}:  no longer watched")?,
                }
                if config.accepted { write!(f, ", accepted by a person") } else { Ok(()) }
            }
            Body::Copied(copied) => {
                let replica = Safe::text(copied.replica.as_str());
                write!(f, "copied   ")?;
                if let Some(old_path) = &copied.old_path {
                    write!(f, "{} → ", Place(copied.root.as_str(), old_path))?;
                }
                let place = Place(copied.root.as_str(), &copied.path);
                write!(f, "{place}  at {replica} ({})", copied.proof.as_str())
            }
            Body::Withdrawn(gone) => {
                let (place, replica) = (Place(gone.root.as_str(), &gone.path), Safe::text(gone.replica.as_str()));
                write!(f, "{:<8} {place}  at {replica}", gone.how.as_str())
            }
            Body::Failed(failed) => {
                let (place, replica) = (Place(failed.root.as_str(), &failed.path), Safe::text(failed.replica.as_str()));
                write!(f, "failed   {place}  at {replica}: {}", Safe::text(&failed.why))
            }
            Body::Replica(config) => {
                let replica = Safe::text(config.replica.as_str());
                match &config.url {
                    Some(url) => write!(f, "config   replica {replica}:  {}", Safe::text(url)),
                    None => write!(f, "config   replica {replica}:  no longer kept"),
                }
            }
            Body::Run(run) => {
                let (place, trigger) = (Place(run.root.as_str(), &run.path), Safe::text(run.trigger.as_str()));
                write!(f, "{:<8} {place}  trigger {trigger}", run.step.as_str())?;
                if !run.more.is_empty() {
                    write!(f, ", and {} more", count(run.more.len() as u64, "file"))?;
                }
                run.why.iter().try_for_each(|why| write!(f, ": {}", Safe::text(why)))
            }
            Body::Trigger(config) => {
                let trigger = Safe::text(config.trigger.as_str());
                match &config.roots {
                    Some(_) => write!(f, "config   trigger {trigger}:  runs"),
                    None => write!(f, "config   trigger {trigger}:  no longer configured"),
                }
            }

            Body::Hashed(hashed) => {
                let place = Place(hashed.root.as_str(), &hashed.path);
                write!(f, "hashed   {place}{}  {}", At(hashed.replica.as_ref()), human_size(hashed.size))
            }
            Body::Verified(verified) => {
                let (root, count) = (Safe::text(verified.root.as_str()), count(verified.files.len() as u64, "file"));
                write!(f, "verified {root}:{}  {count}", At(verified.replica.as_ref()))
            }
            Body::Unsound(unsound) => show_unsound(unsound, f),
            Body::Repaired(repaired) => {
                let place = Place(repaired.root.as_str(), &repaired.path);
                let from = repaired.from.as_ref().map_or("the original", |from| from.as_str());
                write!(f, "repaired {place}{}  from {}", At(repaired.replica.as_ref()), Safe::text(from))?;
                repaired.kept.iter().try_for_each(|kept| write!(f, ", the bad bytes are kept as {}", Safe(kept)))
            }
            Body::Restored(restored) => {
                let place = Place(restored.root.as_str(), &restored.path);
                write!(f, "restored {place}{}  {}", At(Some(&restored.replica)), count(restored.files, "file"))?;
                match &restored.to {
                    Some(to) => write!(f, " to {}", Safe(to))?,
                    None => write!(f, ", a drill")?,
                }
                if restored.failed > 0 { write!(f, ", {} could not be", restored.failed) } else { Ok(()) }
            }
            Body::Released(released) => {
                let place = Place(released.root.as_str(), &released.path);
                write!(f, "released {place}  {}, held by", human_size(released.size))?;
                released.copies.iter().try_for_each(|copy| write!(f, " {}", Safe::text(copy.as_str())))
            }
            Body::Enrolled(enrolled) => {
                let place = Place(enrolled.root.as_str(), &enrolled.path);
                write!(f, "enrolled {place}  {}, from a backup", human_size(enrolled.size))
            }
            Body::Other(word) => {
                write!(f, "{:<8}", Safe::text(word).to_string())?;
                let fields = self.0.extra.iter().flat_map(|fields| fields.iter());
                fields
                    .into_iter()
                    .try_for_each(|(name, value)| write!(f, " {}={}", Safe::text(name), Safe::text(&value.to_string())))
            }
        }
    }
}

fn show_change(change: &Change, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{:<8} ", change.op.as_str())?;
    if let Some(old) = &change.old {
        let arrow = if change.exchange { "↔" } else { "→" };
        let root = old.root.as_ref().unwrap_or(&change.root);
        write!(f, "{} {arrow} ", Place(root.as_str(), &old.path))?;
    }
    write!(f, "{}", Place(change.root.as_str(), &change.path))?;
    if let Some(facts) = &change.facts {
        match facts.kind {
            FileType::File => write!(f, "  {}", human_size(facts.size))?,
            kind => write!(f, "  {}", kind.as_str())?,
        }
    }
    if change.subtree {
        write!(f, "  with all in it")?;
    }
    match &change.by {
        Some(by) => show_by(by, f)?,
        None => write!(f, "  ({})", change.via.as_str())?,
    }
    if change.merged { write!(f, "  merged") } else { Ok(()) }
}

fn show_by(by: &By, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "  by")?;
    if let Some(exe) = &by.exe {
        write!(f, " {}", Safe(exe))?;
    }
    write!(f, " pid {}", by.pid)?;
    by.uid.iter().try_for_each(|uid| write!(f, " uid {uid}"))
}

fn show_unsound(unsound: &Unsound, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (place, at) = (Place(unsound.root.as_str(), &unsound.path), At(unsound.replica.as_ref()));
    write!(f, "{:<8} {place}{at}  {}", unsound.what.as_str(), words(&unsound.what))
}

/// What is wrong, in words.
#[must_use]
pub fn words(what: &Unsoundness) -> String {
    match what {
        Unsoundness::Rot { digest, expected, found, touched } => {
            let touched = if *touched { ", the inode was touched since" } else { "" };
            let digest = digest.as_str();
            format!("the content changed, size and mtime did not{touched}: {digest} {found}, recorded {expected}")
        }
        Unsoundness::Missed(Drift::Changed) => "it is not what was recorded, and no change was".to_owned(),
        Unsoundness::Missed(Drift::Missing) => "it is not there, and no deletion was recorded".to_owned(),
        Unsoundness::Missed(Drift::Foreign) => "nothing is known of it".to_owned(),
        Unsoundness::Unreadable { why } => format!("it cannot be read: {}", Safe::text(why)),
    }
}

/// ` at REPLICA`, for what is there and not an original.
struct At<'a>(Option<&'a ReplicaName>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |replica| write!(f, "  at {}", Safe::text(replica.as_str())))
    }
}

/// `root:path`, as scp writes a host's.
struct Place<'a>(&'a str, &'a RelPath);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Safe::text(self.0), Safe(self.1.as_bytes()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What a line of the journal looks like to a person, without its time.
    fn shown(json: &str) -> String {
        let line = format!(r#"{{"seq":7,"at":"2026-11-20T10:11:12.123456789Z",{json}}}"#);
        let record = Record::parse(line.as_bytes()).unwrap();
        let shown = Line(&record).to_string();
        let mut back = Vec::new();
        write_json(&record, &mut Vec::new(), &mut back).unwrap();
        assert_eq!(back, format!("{line}\n").into_bytes(), "the JSON form is the record as it stands");
        shown.strip_prefix("2026-11-20T10:11:12.123Z  ").unwrap().to_owned()
    }

    const FACTS: &str = r#""type":"file","size":12345,"mtime_ns":1,"ctime_ns":1,"dev":1,"inode":1,"mode":420,"uid":0,"gid":0,"nlink":1"#;

    #[test]
    fn changes_say_what_where_and_who() {
        let create = format!(
            r#""do":"create","root":"records","path":"a\nb",{FACTS},"via":"fanotify","by":{{"pid":12,"uid":1000,"exe":"/usr/bin/cp"}}"#
        );
        assert_eq!(shown(&create), "create   records:a\\nb  12.3 kB  by /usr/bin/cp pid 12 uid 1000");
        let moved = format!(r#""do":"move","root":"records","path":"b","old_path":"a",{FACTS},"via":"inotify""#);
        assert_eq!(shown(&moved), "move     records:a → records:b  12.3 kB  (inotify)");
        let gone = r#""do":"delete","root":"records","path":"d","via":"scan","merged":true,"subtree":true"#;
        assert_eq!(shown(gone), "delete   records:d  with all in it  (scan)  merged");
    }

    #[test]
    fn gaps_and_unknown_records_are_shown_too() {
        let gap = r#""do":"gap","path":"","reason":"overflow","note":"queue\u001b full""#;
        assert_eq!(shown(gap), "gap      *:  overflow: queue\\x1b full");
        let other = r#""do":"praised","root":"records","path":"a","replica":"vault""#;
        assert_eq!(shown(other), "praised  root=\"records\" path=\"a\" replica=\"vault\"");
    }
}
