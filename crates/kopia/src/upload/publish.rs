//! Directories as objects: finished ones, and for checkpoints those that are still open.

use std::collections::HashMap;
use std::sync::Arc;

use super::engine::Engine;
use super::large::list_options;
use super::tree::{Directory, dir_entry};
use crate::content::Prefix;
use crate::error::KopiaResult;
use crate::object::{ListOptions, ListWriter, ObjectId, ObjectOptions, ObjectWriter, PieceOptions};
use crate::snapshot::{DirEntry, DirectoryWriter, EntryName, Summary, UtcTime, field_json};

/// Why a directory of a checkpoint is incomplete.
pub(super) const CHECKPOINT: &str = "checkpoint";

/// Parts of files, for the directories they are in.
type PartialFiles = HashMap<*const Directory, Vec<DirEntry>>;

impl Engine {
    /// Stores a directory of which everything is known.
    pub(super) fn write_directory(&self, directory: &Directory) -> KopiaResult<(ObjectId, Summary)> {
        self.store_directory(directory, &HashMap::new(), &[], "")
    }

    /// Stores what there is so far, as a root; none before the root was listed.
    pub(super) fn checkpoint(&self) -> KopiaResult<Option<DirEntry>> {
        let Some(root) = self.root() else {
            return Ok(None);
        };
        let mut files = PartialFiles::new();
        for file in self.large_files() {
            let (directory, index) = file.place();
            let mut list = ListWriter::new(self.sink.clone(), list_options(self));
            for part in file.stored_parts() {
                list.push(part)?;
            }
            let size = list.length();
            let (Some(object), Some(entry)) = (list.finish()?, directory.entry(index)) else {
                continue;
            };
            // Not the file's name: the next run must not take it for the file.
            let mut name = b".checkpointed.".to_vec();
            name.extend_from_slice(directory.listing().name(entry));
            name.extend_from_slice(format!(".{object}").as_bytes());
            let entry = DirEntry {
                object: Some(object),
                size,
                ..dir_entry(EntryName::from(name), &directory.listing().metadata(entry))
            };
            files.entry(Arc::as_ptr(directory)).or_default().push(entry);
        }
        self.checkpoint_directory(&root, &files).map(Some)
    }

    fn checkpoint_directory(&self, directory: &Directory, files: &PartialFiles) -> KopiaResult<DirEntry> {
        let mut open = HashMap::new();
        for (index, below) in directory.open() {
            if self.is_stopped() {
                return Err(crate::KopiaError::Cancelled);
            }
            open.insert(index, self.checkpoint_directory(&below, files)?);
        }
        let files = files.get(&std::ptr::from_ref(directory));
        let files = files.map(Vec::as_slice).unwrap_or_default();
        let (object, summary) = self.store_directory(directory, &open, files, CHECKPOINT)?;
        Ok(directory.dir_entry(object, summary))
    }

    fn store_directory(
        &self,
        directory: &Directory,
        open: &HashMap<u32, DirEntry>,
        files: &[DirEntry],
        incomplete: &str,
    ) -> KopiaResult<(ObjectId, Summary)> {
        let prefix = Some(Prefix::DIRECTORY);
        let splitter = self.plan.splitter;
        let mut object = ObjectWriter::new(
            self.sink.clone(),
            ObjectOptions {
                pieces: PieceOptions {
                    prefix,
                    compression: self.plan.metadata_compression,
                    splitter,
                    batch: 1,
                },
                list: ListOptions {
                    prefix,
                    compression: self.plan.metadata_compression,
                    splitter,
                },
            },
        );
        let mut write = |data: &[u8]| object.write(data);
        let checkpoint = !incomplete.is_empty();
        let own = directory
            .attributes()
            .map(|values| field_json(Some(values), None));
        let mut writer = DirectoryWriter::with_attributes(&mut write, own.as_deref());
        let failures = directory.for_each_stored(open, |entry, kept| {
            let attributes = self.attributes_field(directory, &kept, checkpoint)?;
            writer.add_with(&entry, attributes.as_deref())
        })?;
        if own.is_some() && !checkpoint {
            self.progress.attributes_kept(1);
        }
        files.iter().try_for_each(|file| writer.add(file))?;
        writer.add_ignored(failures.count, failures.named);
        let summary = writer.finish(UtcTime::from_nanos(directory.metadata().mtime), incomplete)?;
        Ok((object.finish()?, summary))
    }
}
