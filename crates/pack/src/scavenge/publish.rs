//! Bringing new members into one archive.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use uuid::Uuid;

use super::report::Report;
use crate::archive::{Archive, content};
use crate::build::{Beat, Built, NewMember, Sources, build};
use crate::digest::Digest;
use crate::error::{During, PackError};
use crate::files::{Files, if_there};
use crate::generation::{self, Placed};
use crate::index::{self, Found, INDEX_MEMBERS_MIN, Lookup, Place};
use crate::manifest::{Manifest, PartLine};
use crate::name::ArchiveName;
use crate::part::{Part, PartId};
use crate::place;
use crate::plan::{self, Amount, Limits};
use crate::scan::StagedMember;
use crate::zip::STORED;
use crate::zip::window::Window;

/// How often an archive is planned anew because others published meanwhile.
const TRIES_MAX: u32 = 50;
/// After so many tries large parts are left as they are, so that writing takes less time than others leave.
const MERGING_TRIES_MAX: u32 = 3;

/// What is needed to publish.
pub(super) struct Publisher<'a> {
    pub(super) files: &'a dyn Files,
    /// Where parts are built.
    pub(super) work: &'a Path,
    pub(super) limits: &'a Limits,
    pub(super) sources: &'a dyn Sources,
    pub(super) report: &'a mut Report,
    /// Parts that turned out to be damaged when they were to be merged.
    pub(super) unmergeable: Vec<PartId>,
}

/// What becomes of a staged member.
enum Fate {
    /// It is in the archive already, with the same bytes.
    Known,
    /// It is to be stored under this name.
    New(Vec<u8>),
}

impl Publisher<'_> {
    /// Brings members into an archive. When this returns, each is there, read back and durable.
    pub(super) fn publish(
        &mut self,
        archive: &ArchiveName,
        mut members: Vec<(usize, StagedMember)>,
        beat: Beat<'_>,
    ) -> Result<(), PackError> {
        let mut tries = 0;
        loop {
            beat()?;
            let mut opened = Archive::open_settled(self.files, archive, self.work)?;
            if opened.generation > 0 {
                self.sync(archive)?;
            }
            let (new, known) = self.sort_out(&mut opened, &members)?;
            self.keep_indexes(&mut opened)?;
            if new.is_empty() {
                self.report.known += known;
                return Ok(());
            }
            let count = plan::fitting(new.iter().map(size_of), self.limits);
            let (batch, rest) = new.split_at(count);
            if self.publish_batch(&opened, batch, tries < MERGING_TRIES_MAX, beat)? {
                self.report.packed(archive, batch);
                self.report.known += known;
                members = rest.iter().map(|member| (member.source, member.staged.clone())).collect();
                tries = 0;
                if members.is_empty() {
                    return Ok(());
                }
            } else {
                tries += 1;
            }
            if tries >= TRIES_MAX {
                return Err(PackError::Contended { archive: archive.to_string(), tries });
            }
        }
    }

    /// What somebody else published may not be durable yet.
    fn sync(&self, archive: &ArchiveName) -> Result<(), PackError> {
        let dirs = [place::generations_dir(archive), archive.path().parent().unwrap_or(Path::new("")).to_owned()];
        for dir in dirs {
            if_there(self.files.sync_dir(&dir)).during("sync", &dir)?;
        }
        Ok(())
    }

    /// Which members are new, and under which names; and how many are known.
    fn sort_out(
        &mut self,
        archive: &mut Archive,
        members: &[(usize, StagedMember)],
    ) -> Result<(Vec<NewMember>, u64), PackError> {
        archive.expect(self.files, members.iter().map(|(_, staged)| staged.name.member()));
        let mut chosen: HashMap<Vec<u8>, usize> = HashMap::with_capacity(members.len());
        let (mut new, mut known): (Vec<NewMember>, u64) = (Vec::with_capacity(members.len()), 0);
        for (source, staged) in members {
            match self.fate(archive, &chosen, &new, *source, staged)? {
                Fate::Known => known += 1,
                Fate::New(stored_as) => {
                    chosen.insert(stored_as.clone(), new.len());
                    new.push(NewMember { source: *source, staged: staged.clone(), stored_as });
                }
            }
        }
        Ok((new, known))
    }

    fn fate(
        &self,
        archive: &mut Archive,
        chosen: &HashMap<Vec<u8>, usize>,
        new: &[NewMember],
        source: usize,
        staged: &StagedMember,
    ) -> Result<Fate, PackError> {
        for version in 1_u32.. {
            let mut name = staged.name.member().to_vec();
            if version > 1 {
                name.extend_from_slice(format!("~{version}").as_bytes());
            }
            if let Some(other) = chosen.get(&name).map(|at| &new[*at]) {
                let other = (other.source, &other.staged);
                if self.is_same_staged((source, staged), other)? {
                    return Ok(Fate::Known);
                }
                continue;
            }
            let Some((part, found)) = archive.find(self.files, &name)? else { return Ok(Fate::New(name)) };
            if self.is_same_packed((source, staged), &archive.parts[part], &found)? {
                return Ok(Fate::Known);
            }
        }
        unreachable!("there are more versions than members")
    }

    fn is_same_staged(&self, one: (usize, &StagedMember), other: (usize, &StagedMember)) -> Result<bool, PackError> {
        if (one.1.content.crc, one.1.content.size) != (other.1.content.crc, other.1.content.size) {
            return Ok(false);
        }
        let file = self.sources.open(other.0)?;
        self.is_same(one, &*file, Path::new("what is staged"), &found_of(other.1))
    }

    fn is_same_packed(&self, one: (usize, &StagedMember), part: &Part, found: &Found) -> Result<bool, PackError> {
        if (one.1.content.crc, one.1.content.size) != (found.content.crc, found.content.size) {
            return Ok(false);
        }
        self.is_same(one, &*part.file, &part.path, found)
    }

    /// Compares the contents, byte by byte. A member that is damaged where it is packed is not the same.
    fn is_same(
        &self,
        (source, staged): (usize, &StagedMember),
        file: &dyn crate::files::File,
        path: &Path,
        found: &Found,
    ) -> Result<bool, PackError> {
        let own = self.sources.open(source)?;
        if staged.content.method != STORED {
            // What is compressed cannot be read side by side in little memory: its digest is compared besides the CRC.
            let digest = |file: &dyn crate::files::File, found: &Found| {
                let mut digest = Digest::default();
                content(file, path, found, &mut |piece| {
                    digest.update(piece);
                    Ok(())
                })
                .map(|()| digest.finish())
            };
            let own_digest = digest(&*own, &found_of(staged))?;
            return match digest(file, found) {
                Ok(other) => Ok(other == own_digest),
                Err(error) => is_same_if(Err(error)),
            };
        }
        let mut window = Window::new(&*own, staged.data_at + staged.content.size);
        let mut at = staged.data_at;
        let compared = content(file, path, found, &mut |piece| {
            let mine = window.at(at, piece.len())?;
            at += piece.len() as u64;
            if mine == piece { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
        });
        is_same_if(compared)
    }

    /// Writes and publishes a batch; `false` if others published meanwhile.
    fn publish_batch(
        &mut self,
        archive: &Archive,
        batch: &[NewMember],
        may_merge: bool,
        beat: Beat<'_>,
    ) -> Result<bool, PackError> {
        let sound = archive.parts.iter().filter(|part| !self.unmergeable.contains(&part.id));
        let amounts: Vec<_> = sound.map(|part| (part.number, amount_of(part))).collect();
        let sum = Amount { members: batch.len() as u64, bytes: batch.iter().map(size_of).sum() };
        let limits = if may_merge { *self.limits } else { Limits { ratio: 0, ..*self.limits } };
        let merged = plan::merged(&amounts, sum, &limits);
        match self.write_and_publish(archive, &merged, batch, beat) {
            // There is no room for the old and the new together; for what is new alone there may be.
            Err(error) if is_full(&error) && !merged.is_empty() => self.write_and_publish(archive, &[], batch, beat),
            result => result,
        }
    }

    fn write_and_publish(
        &mut self,
        archive: &Archive,
        merged: &[u32],
        batch: &[NewMember],
        beat: Beat<'_>,
    ) -> Result<bool, PackError> {
        let parts: Vec<&Part> = archive.parts.iter().filter(|part| merged.contains(&part.number)).collect();
        let path = self.work.join(format!("{}.zip", Uuid::now_v7()));
        let built = match build(self.files, &archive.name, &parts, batch, self.sources, &path, beat) {
            Ok(built) => built,
            Err(error) => {
                let _ = self.files.remove(&path);
                let cause =
                    parts.iter().find(|part| matches!(&error, PackError::Damaged { path, .. } if *path == part.path));
                if let Some(part) = cause {
                    self.unmergeable.push(part.id);
                    return Ok(false);
                }
                // Parts that others have merged meanwhile may be gone.
                let is_gone = error.io().is_some_and(crate::files::is_absent);
                return if is_gone { Ok(false) } else { Err(error) };
            }
        };
        self.report.bytes_written += built.id.size;
        beat()?;
        let (manifest, number) = self.manifest(archive, &parts, built.id)?;
        let published = match self.hand_over(&built, &manifest) {
            Ok(published) => published,
            Err(error) => {
                self.withdraw(built.id, &manifest);
                return Err(error);
            }
        };
        if published {
            if generation::settle(self.files, &manifest)? != Placed::Fine {
                // Somebody put a file under that name just now: the part gets another one.
                Archive::open_settled(self.files, &archive.name, self.work)?;
            }
            generation::prune(self.files, &archive.name, manifest.number)?;
            self.check_in_place(archive, number, built.id)?;
            self.write_index(&archive.name, number, built.id, &built.places)?;
        }
        let candidate = generation::candidate_path(self.work, &manifest);
        if_there(self.files.remove(&candidate)).during("remove", &candidate)?;
        if !published {
            // It is where it was built, or where it waits; if it was published after all, it has its name.
            let _ = self.files.remove(&place::new_part(built.id));
        }
        Ok(published)
    }

    /// The next generation, and the number of the part in it that was built.
    fn manifest(&self, archive: &Archive, merged: &[&Part], id: PartId) -> Result<(Manifest, u32), PackError> {
        let mut next = archive.next;
        let over = merged.first();
        let number = match over {
            Some(part) => part.number,
            None => {
                // The first part has the archive's own name, if that is free.
                let numbers = archive.parts.iter().map(|part| part.number);
                let is_held = numbers.chain(archive.damaged.iter().map(|line| line.number)).any(|number| number == 0);
                let mut free = if is_held { next.max(1) } else { 0 };
                while archive.is_taken(self.files, free)? {
                    free = next.max(free + 1);
                }
                free
            }
        };
        next = next.max(number + 1);
        let mut lines = archive.lines();
        for part in merged {
            lines.remove(&part.number);
        }
        lines.insert(number, PartLine { number, id, over: over.map(|part| part.id) });
        let retired = merged.iter().skip(1).map(|part| (part.number, part.id)).collect();
        let manifest = Manifest {
            archive: archive.name.clone(),
            number: archive.generation + 1,
            token: Uuid::now_v7(),
            next,
            parts: lines.into_values().collect(),
            retired,
        };
        Ok((manifest, number))
    }

    /// The order is what makes it safe: whoever takes this work directory away takes the text of the generation with it,
    /// so that the part that goes with it can be removed only when it can no longer be published.
    fn hand_over(&mut self, built: &Built, manifest: &Manifest) -> Result<bool, PackError> {
        let candidate = generation::candidate_path(self.work, manifest);
        generation::write_small(self.files, &candidate, manifest.encode().as_bytes())?;
        self.files.sync_dir(self.work).during("sync", self.work)?;
        let waiting = place::new_part(built.id);
        let moved = self.files.rename(&built.path, &waiting);
        if moved.is_err() && self.files.stat(&waiting).is_err() {
            moved.during("move", &built.path)?;
        }
        self.files.sync_dir(&place::new_dir()).during("sync", &place::new_dir())?;
        generation::publish(self.files, &candidate, manifest)
    }

    /// Takes back a part on its way when the text that would publish it was taken away with the work directory: whoever
    /// has that may have looked before the part was moved. Only this scavenger would have published it, and it did not.
    fn withdraw(&self, id: PartId, manifest: &Manifest) {
        let candidate = generation::candidate_path(self.work, manifest);
        if !matches!(if_there(self.files.stat(&candidate)), Ok(None)) {
            return;
        }
        if let Ok(newest) = generation::newest(self.files, &manifest.archive)
            && !generation::has(newest.manifest.as_ref(), id)
        {
            let _ = self.files.remove(&place::new_part(id));
        }
    }

    /// What was read back is what is there now, unless somebody has merged it already.
    fn check_in_place(&self, archive: &Archive, number: u32, id: PartId) -> Result<(), PackError> {
        if Part::find(self.files, &archive.name, number, id)?.is_some() {
            return Ok(());
        }
        let newest = generation::newest(self.files, &archive.name)?;
        if !generation::has(newest.manifest.as_ref(), id) {
            return Ok(());
        }
        let path = archive.name.part_path(number);
        Err(PackError::Damaged { path, what: "it was published and is not there; what is staged is kept".to_owned() })
    }

    /// Writes the index of a part, or removes one that it does not need. It is made of what the part holds, so it is not
    /// synced: one that is damaged is made anew.
    fn write_index(
        &mut self,
        archive: &ArchiveName,
        number: u32,
        id: PartId,
        places: &[Place],
    ) -> Result<(), PackError> {
        let path = archive.index_path(number);
        if (places.len() as u64) < INDEX_MEMBERS_MIN {
            if_there(self.files.remove(&path)).during("remove", &path)?;
            return Ok(());
        }
        let building = self.work.join(format!("{}.index", Uuid::now_v7()));
        let file = self.files.create_new(&building).during("create", &building)?;
        index::write(&*file, id, places).during("write", &building)?;
        self.files.rename(&building, &path).during("publish", &path)
    }

    /// Writes the indexes that large parts lack.
    fn keep_indexes(&mut self, archive: &mut Archive) -> Result<(), PackError> {
        let name = archive.name.clone();
        for part in &mut archive.parts {
            if part.end.members >= INDEX_MEMBERS_MIN
                && let Lookup::Memory(places) = part.lookup(self.files, &name)?
            {
                let places = places.clone();
                self.write_index(&name, part.number, part.id, &places)?;
            }
        }
        Ok(())
    }
}

fn size_of(member: &NewMember) -> u64 {
    member.staged.content.packed + 2 * (member.stored_as.len() as u64) + 100
}

fn amount_of(part: &Part) -> Amount {
    Amount { members: part.end.members, bytes: part.id.size }
}

fn found_of(staged: &StagedMember) -> Found {
    Found { content: staged.content, flags: 0, data_at: staged.data_at }
}

fn is_full(error: &PackError) -> bool {
    error.io().is_some_and(|error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

fn is_same_if(compared: Result<(), PackError>) -> Result<bool, PackError> {
    match compared {
        Ok(()) => Ok(true),
        Err(PackError::Io { source, .. }) if source.kind() == io::ErrorKind::InvalidData => Ok(false),
        // A member that is damaged where it is: what is staged is stored beside it.
        Err(PackError::Damaged { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
