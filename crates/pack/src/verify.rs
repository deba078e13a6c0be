//! Holding archives against themselves: every member by the list, its header, its content; the index by the list.

use std::path::PathBuf;

use crate::archive::{Archive, content};
use crate::base::Base;
use crate::error::{During, PackError};
use crate::files::read_exact_at;
use crate::index::{Found, INDEX_MEMBERS_MIN, Index, name_digest};
use crate::name::{ArchiveName, escape};
use crate::part::Part;
use crate::zip::central::{self, Entry};
use crate::zip::local;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In which file, below the base.
    pub path: PathBuf,
    /// In which member, if in one.
    pub member: Option<String>,
    /// In words.
    pub what: String,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Files of archives.
    pub parts: u64,
    /// Members, in all of them.
    pub members: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// What is not as it should be.
    pub findings: u64,
}

impl Base {
    /// Reads all of an archive and tells what is wrong with it.
    ///
    /// # Errors
    /// If something cannot be read at all.
    pub fn verify(&self, archive: &ArchiveName, tell: &mut dyn FnMut(&Finding)) -> Result<Verified, PackError> {
        let opened = Archive::open(&*self.files, archive)?;
        let mut verified = Verified::default();
        let mut found = |verified: &mut Verified, path: PathBuf, member: Option<String>, what: String| {
            verified.findings += 1;
            tell(&Finding { path, member, what });
        };
        for line in &opened.missing {
            let path = archive.part_path(line.number);
            found(&mut verified, path, None, "it is gone: somebody took it away".to_owned());
        }
        for (number, what) in &opened.strange {
            found(&mut verified, archive.part_path(*number), None, what.clone());
        }
        for part in &opened.parts {
            verified.parts += 1;
            let mut told = |verified: &mut Verified, member: Option<String>, what: String| {
                found(verified, part.path.clone(), member, what);
            };
            self.verify_part(archive, part, &mut verified, &mut told)?;
        }
        Ok(verified)
    }

    fn verify_part(
        &self,
        archive: &ArchiveName,
        part: &Part,
        verified: &mut Verified,
        tell: &mut dyn FnMut(&mut Verified, Option<String>, String),
    ) -> Result<(), PackError> {
        let index = if part.end.members < INDEX_MEMBERS_MIN {
            None
        } else {
            Index::open(&*self.files, &archive.index_path(part.number), part.id)
        };
        let mut ends: Vec<(u64, u64)> = Vec::new();
        let mut failed = None;
        let listed = central::each(&*part.file, &part.end, &mut |entry| {
            verified.members += 1;
            verified.bytes += entry.content.size;
            match verify_member(part, entry) {
                Ok(end) => join(&mut ends, (entry.offset, end), || {
                    tell(verified, Some(escape(entry.name)), "it shares bytes with another member".to_owned());
                }),
                Err(PackError::Damaged { what, .. }) => tell(verified, Some(escape(entry.name)), what),
                Err(error) => {
                    failed = Some(error);
                    return Err(central::Unreadable::Directory);
                }
            }
            let is_indexed =
                |index: &Index| index.find(name_digest(entry.name)).is_ok_and(|places| places.contains(&entry.offset));
            if index.as_ref().is_some_and(|index| !is_indexed(index)) {
                tell(verified, Some(escape(entry.name)), "the index does not have it: remove the index".to_owned());
            }
            Ok(())
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if let Err(error) = listed {
            tell(verified, None, error.to_string());
        }
        Ok(())
    }
}

/// Keeps what is taken up, as stretches that touch joined into one; members that follow each other cost nothing.
fn join(ends: &mut Vec<(u64, u64)>, (from, to): (u64, u64), shared: impl FnOnce()) {
    let at = ends.partition_point(|(known, _)| *known <= from);
    let overlaps_before = at > 0 && ends[at - 1].1 > from;
    let overlaps_after = ends.get(at).is_some_and(|(known, _)| *known < to);
    if overlaps_before || overlaps_after {
        return shared();
    }
    if at > 0 && ends[at - 1].1 == from {
        ends[at - 1].1 = to;
    } else {
        ends.insert(at, (from, to));
    }
}

/// Reads a member; where it ends.
fn verify_member(part: &Part, entry: &Entry<'_>) -> Result<u64, PackError> {
    let damaged = |what: &str| PackError::Damaged { path: part.path.clone(), what: what.to_owned() };
    let available = part.end.directory_at.saturating_sub(entry.offset);
    let len = (local::FIXED_LEN + entry.name.len() + 2 * 65_535) as u64;
    let mut bytes = vec![0; usize::try_from(len.min(available).min(1024 + entry.name.len() as u64)).unwrap_or(0)];
    read_exact_at(&*part.file, &mut bytes, entry.offset).during("read", &part.path)?;
    if matches!(local::parse(&bytes), Err(local::Flaw::Short)) {
        bytes.resize(usize::try_from(len.min(available)).unwrap_or(0), 0);
        read_exact_at(&*part.file, &mut bytes, entry.offset).during("read", &part.path)?;
    }
    let header = local::parse(&bytes).map_err(|_| damaged("there is no header where the list says"))?;
    if header.name != entry.name {
        return Err(damaged("its header has another name"));
    }
    let has_sizes = header.flags & crate::zip::FLAG_DESCRIPTOR == 0;
    if has_sizes && header.content != entry.content {
        return Err(damaged("its header and the list of members differ"));
    }
    let data_at = entry.offset + header.len as u64;
    let end = data_at.checked_add(entry.content.packed).filter(|end| *end <= part.end.directory_at);
    let end = end.ok_or_else(|| damaged("it is longer than its archive"))?;
    let found = Found { content: entry.content, flags: entry.flags, data_at };
    content(&*part.file, &part.path, &found, &mut |_| Ok(()))?;
    Ok(end)
}
