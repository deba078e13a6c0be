//! A staging file being written: a zip archive in which every member is complete, sizes and sum before its data, before
//! the next one begins.

use std::path::{Path, PathBuf};

use crate::error::{During, PackError};
use crate::files::{Facts, File, Files};
use crate::name::MemberName;
use crate::owner::Owner;
use crate::place;
use crate::zip::central::{self, End};
use crate::zip::local::{self, Attributes, Content};

/// A staging file that this process appends to.
pub(crate) struct StagingFile {
    file: Box<dyn File>,
    facts: Facts,
    owner: Owner,
    path: PathBuf,
    /// Where the next member begins.
    end: u64,
    directory: Vec<u8>,
    members: u64,
    /// The header of the member at hand; kept to spare an allocation for each.
    buffer: Vec<u8>,
}

impl StagingFile {
    /// Creates an empty one, under a name that nobody else has.
    pub(crate) fn create(files: &dyn Files, owner: Owner, ending: &str) -> Result<Self, PackError> {
        let path = place::own(&format!("{owner}.{ending}"));
        let file = files.create_new(&path).during("create", &path)?;
        let facts = file.facts().during("create", &path)?;
        Ok(StagingFile { file, facts, owner, path, end: 0, directory: Vec::new(), members: 0, buffer: Vec::new() })
    }

    /// Members so far.
    pub(crate) fn members(&self) -> u64 {
        self.members
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &dyn File {
        &*self.file
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a member whose data is in memory. After an error the file is as it was before, but for bytes that the
    /// next member overwrites.
    pub(crate) fn append(
        &mut self,
        name: &MemberName,
        content: &Content,
        attributes: &Attributes,
        data: &[u8],
    ) -> Result<(), PackError> {
        self.buffer.clear();
        local::encode_staged(name.as_bytes(), content, attributes, self.owner.salt(), None, &mut self.buffer);
        self.buffer.extend_from_slice(data);
        self.file.write_at(&self.buffer, self.end).during("write", &self.path)?;
        self.count(name, content, attributes, self.buffer.len() as u64);
        Ok(())
    }

    /// Where the data of a large member begins: behind room for its header. It must be the next one.
    pub(crate) fn large_data_at(&self, name: &MemberName) -> u64 {
        self.end + (local::FIXED_LEN + name.as_bytes().len() + local::STAGED_EXTRA_LEN_MAX) as u64
    }

    /// Puts the header before data that was written at [`StagingFile::large_data_at`].
    pub(crate) fn seal_large(
        &mut self,
        name: &MemberName,
        content: &Content,
        attributes: &Attributes,
    ) -> Result<(), PackError> {
        let data_at = self.large_data_at(name);
        self.buffer.clear();
        let stretch = Some(local::STAGED_EXTRA_LEN_MAX);
        local::encode_staged(name.as_bytes(), content, attributes, self.owner.salt(), stretch, &mut self.buffer);
        self.file.write_at(&self.buffer, self.end).during("write", &self.path)?;
        self.count(name, content, attributes, data_at - self.end + content.packed);
        Ok(())
    }

    fn count(&mut self, name: &MemberName, content: &Content, attributes: &Attributes, len: u64) {
        central::encode(
            name.as_bytes(),
            content,
            attributes.mode,
            attributes.mtime_secs,
            self.end,
            &mut self.directory,
        );
        self.end += len;
        self.members += 1;
    }

    /// Whether its name still stands for this very file. Where it does not, a scavenger took it away, and nobody knows
    /// how much of the last member it has seen.
    pub(crate) fn is_in_place(&self, files: &dyn Files) -> bool {
        // Opened, not only looked at: on NFS that asks the server (close-to-open consistency, nfs(5)).
        let facts = files.open(&self.path).and_then(|file| file.facts());
        facts.is_ok_and(|facts| (facts.dev, facts.inode) == (self.facts.dev, self.facts.inode))
    }

    /// Makes all that was appended durable.
    pub(crate) fn sync(&self) -> Result<(), PackError> {
        self.file.sync().during("sync", &self.path)
    }

    /// Writes the list of members behind them, makes all of it durable and lets scavengers take it. A file that one of
    /// them took already is theirs, and fine. After an error it may be in place still: then it can be closed again.
    pub(crate) fn close(&mut self, files: &dyn Files) -> Result<(), PackError> {
        // Without the list of members each of them is still complete: scavengers do not need it.
        let _ = self.write_directory();
        let synced = self.sync();
        // Whatever is wrong with the disk, what is there is given away: each member is held against its sum.
        let closed = place::own(&format!("{}.closed", self.owner));
        let renamed = files.rename(&self.path, &closed);
        if renamed.is_err() && self.is_in_place(files) {
            renamed.during("close", &self.path)?;
        }
        files.sync_dir(place::staging_dir()).during("sync", place::staging_dir())?;
        synced
    }

    fn write_directory(&self) -> Result<(), PackError> {
        let end = End {
            directory_at: self.end,
            directory_len: self.directory.len() as u64,
            members: self.members,
            comment: Vec::new(),
        };
        let mut bytes = self.directory.clone();
        central::encode_end(&end, &mut bytes);
        self.file.write_at(&bytes, self.end).during("write", &self.path)?;
        // What a failed write left behind must not stand after the end.
        self.file.set_len(self.end + bytes.len() as u64).during("write", &self.path)
    }

    /// Throws it away.
    pub(crate) fn discard(self, files: &dyn Files) {
        // It is nobody's: if it stays, `status` tells of it.
        let _ = files.remove(&self.path);
    }
}
