//! From the server's archive to the parts of a backup.

use std::mem;

use holdfast_store::Store;
use tokio::task::JoinSet;

use crate::compress::Codec;
use crate::error::{WalgError, WalgResult};
use crate::layout;
use crate::manifest::{FileSum, SeenFiles};
use crate::metadata::FilesMetadata;
use crate::tarball::{END, Member, MemberKind, TarEvent, TarReader, padding};
use crate::writer::{Limits, ObjectWriter, Written};

/// Files that must not be restored from a backup; wal-g leaves them out as well.
pub(crate) const EXCLUDED: [&str; 5] = [
    "recovery.conf",
    "recovery.signal",
    "standby.signal",
    "postmaster.pid",
    "postmaster.opts",
];

/// Files that go into archives of their own, restored last.
const PG_CONTROL: &str = "global/pg_control";
const BACKUP_LABEL: &str = "backup_label";
const TABLESPACE_MAP: &str = "tablespace_map";

/// Largest of those files.
const SMALL: u64 = 1 << 20;

/// Parts that are being completed while the next one is written.
const FINISHING: usize = 2;

/// Where the parts go.
#[derive(Clone, Copy)]
pub(crate) struct CopyTarget<'a> {
    pub(crate) store: &'a Store,
    pub(crate) backup: &'a str,
    pub(crate) host: &'a str,
    pub(crate) codec: Codec,
    pub(crate) limits: &'a Limits,
    pub(crate) part_bytes: u64,
}

/// Takes the archive as it streams by and writes the parts.
pub(crate) struct Copier<'a> {
    target: CopyTarget<'a>,
    reader: TarReader,
    part: Option<(ObjectWriter, String)>,
    parts: u32,
    finishing: JoinSet<WalgResult<Written>>,
    written: Vec<Written>,
    current: Option<Current>,
    small: Vec<(Member, Vec<u8>)>,
    files: FilesMetadata,
    seen: SeenFiles,
}

struct Current {
    member: Member,
    size: u64,
    crc: u32,
    sink: Sink,
}

enum Sink {
    Part,
    Small(Vec<u8>),
    Nowhere,
}

/// What was copied.
pub(crate) struct Copied {
    pub(crate) written: Vec<Written>,
    pub(crate) files: FilesMetadata,
    small: Vec<(Member, Vec<u8>)>,
}

impl<'a> Copier<'a> {
    pub(crate) fn new(target: CopyTarget<'a>, files_limit: usize) -> Self {
        Self {
            target,
            reader: TarReader::new(),
            part: None,
            parts: 0,
            finishing: JoinSet::new(),
            written: Vec::new(),
            current: None,
            small: Vec::new(),
            files: FilesMetadata::with_limit(files_limit),
            seen: SeenFiles::default(),
        }
    }

    /// The files that came.
    pub(crate) fn seen(&self) -> &SeenFiles {
        &self.seen
    }

    fn broken(&self, problem: impl Into<String>) -> WalgError {
        WalgError::Archive {
            host: self.target.host.to_owned(),
            problem: problem.into(),
        }
    }

    /// Takes the next piece of the archive.
    pub(crate) async fn push(&mut self, mut data: &[u8]) -> WalgResult<()> {
        while let Some(event) = self
            .reader
            .step(&mut data)
            .map_err(|problem| self.broken(problem))?
        {
            match event {
                TarEvent::Member(member) => self.begin(*member).await?,
                TarEvent::Data(data) => {
                    let Some(current) = &mut self.current else {
                        continue;
                    };
                    current.crc = crc32c::crc32c_append(current.crc, data);
                    current.size += data.len() as u64;
                    match &mut current.sink {
                        Sink::Nowhere => {}
                        Sink::Small(bytes) => bytes.extend_from_slice(data),
                        Sink::Part => self.write(data).await?,
                    }
                }
                TarEvent::End => self.end().await?,
            }
        }
        Ok(())
    }

    async fn write(&mut self, data: &[u8]) -> WalgResult<()> {
        match &mut self.part {
            Some((writer, _)) => writer.write(data).await,
            None => Err(WalgError::Internal("data without a part".to_owned())),
        }
    }

    async fn begin(&mut self, member: Member) -> WalgResult<()> {
        let path = member.path.as_str();
        let sink = match member.kind {
            MemberKind::Link => {
                let what = format!(
                    "{} has the link {path} in its data directory; backups of tablespaces are not supported yet",
                    self.target.host
                );
                return Err(WalgError::Unsupported { what });
            }
            MemberKind::File if EXCLUDED.contains(&path) => Sink::Nowhere,
            MemberKind::File if [PG_CONTROL, BACKUP_LABEL, TABLESPACE_MAP].contains(&path) => {
                if member.size > SMALL {
                    return Err(self.broken(format!("{path} has {} bytes", member.size)));
                }
                Sink::Small(Vec::new())
            }
            // The data directory itself needs no entry.
            MemberKind::Directory if path.is_empty() => Sink::Nowhere,
            MemberKind::File | MemberKind::Directory => {
                let slash = if member.kind == MemberKind::Directory {
                    "/"
                } else {
                    ""
                };
                let name = format!("/{path}");
                let header = member
                    .header_with(&format!("{name}{slash}"))
                    .map_err(|problem| self.broken(problem))?;
                let archive = self.open_part();
                if member.kind == MemberKind::File {
                    self.files.add(&archive, &name, member.modified);
                }
                self.write(&header).await?;
                Sink::Part
            }
        };
        self.current = Some(Current {
            member,
            size: 0,
            crc: 0,
            sink,
        });
        Ok(())
    }

    async fn end(&mut self) -> WalgResult<()> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let Current {
            member,
            size,
            crc,
            sink,
        } = current;
        if member.kind == MemberKind::File {
            self.seen.add(&member.path, FileSum { size, crc });
        }
        match sink {
            Sink::Nowhere => {}
            Sink::Small(bytes) => self.small.push((member, bytes)),
            Sink::Part => {
                self.write(padding(size)).await?;
                if self
                    .part
                    .as_ref()
                    .is_some_and(|(writer, _)| writer.raw() > self.target.part_bytes)
                {
                    self.close_part().await?;
                }
            }
        }
        Ok(())
    }

    fn open_part(&mut self) -> String {
        if let Some((_, name)) = &self.part {
            return name.clone();
        }
        self.parts += 1;
        let name = layout::part_file(self.parts, self.target.codec);
        self.part = Some((self.target.writer(&name), name.clone()));
        name
    }

    async fn close_part(&mut self) -> WalgResult<()> {
        let Some((mut writer, _)) = self.part.take() else {
            return Ok(());
        };
        writer.write(&END).await?;
        while self.finishing.len() >= FINISHING {
            self.join_one().await?;
        }
        self.finishing.spawn(writer.finish());
        Ok(())
    }

    async fn join_one(&mut self) -> WalgResult<()> {
        if let Some(joined) = self.finishing.join_next().await {
            let written =
                joined.map_err(|error| WalgError::Internal(format!("storing a part failed: {error}")))??;
            self.written.push(written);
        }
        Ok(())
    }

    /// The archive is complete.
    pub(crate) async fn close(&mut self) -> WalgResult<()> {
        if !self.reader.is_complete() || self.current.is_some() {
            return Err(self.broken("it ended in the middle"));
        }
        self.close_part().await
    }

    /// Waits until all parts are stored.
    pub(crate) async fn finish(mut self) -> WalgResult<Copied> {
        while !self.finishing.is_empty() {
            self.join_one().await?;
        }
        for needed in [PG_CONTROL, BACKUP_LABEL] {
            if !self.small.iter().any(|(member, _)| member.path == needed) {
                return Err(self.broken(format!("it has no {needed}")));
            }
        }
        Ok(Copied {
            written: mem::take(&mut self.written),
            files: self.files,
            small: self.small,
        })
    }
}

impl CopyTarget<'_> {
    fn writer(&self, file: &str) -> ObjectWriter {
        let key = format!("{}{file}", layout::parts(self.backup));
        ObjectWriter::new(self.store.upload(&key), self.codec, self.limits)
    }
}

impl Copied {
    /// Stores `pg_control.tar`, then `backup_label.tar`: a restore that lacks them cannot start.
    pub(crate) async fn store_last(&mut self, target: CopyTarget<'_>) -> WalgResult<()> {
        let codec = target.codec;
        // wal-g knows the one with a slash and the others without.
        let control = [(PG_CONTROL, "/global/pg_control")];
        let labels = [(BACKUP_LABEL, BACKUP_LABEL), (TABLESPACE_MAP, TABLESPACE_MAP)];
        let archives: [(String, &[(&str, &str)]); 2] = [
            (layout::pg_control_file(codec), &control),
            (layout::backup_label_file(codec), &labels),
        ];
        for (file, members) in archives {
            let mut writer = target.writer(&file);
            for (path, name) in members {
                let Some((member, data)) = self.small.iter().find(|(member, _)| member.path == *path) else {
                    continue;
                };
                let internal = |problem| WalgError::Archive {
                    host: target.host.to_owned(),
                    problem,
                };
                writer.write(&member.header_with(name).map_err(internal)?).await?;
                writer.write(data).await?;
                writer.write(padding(data.len() as u64)).await?;
                self.files.add(&file, name, member.modified);
            }
            writer.write(&END).await?;
            let written = writer.finish().await?;
            self.written.push(written);
        }
        Ok(())
    }
}

/// A member that no server sent, for tests elsewhere.
#[cfg(test)]
pub(crate) fn header(path: &str, size: u64) -> [u8; crate::tarball::BLOCK] {
    let mut header = tar::Header::new_ustar();
    header.set_path(path).unwrap();
    header.set_size(size);
    header.set_mode(0o600);
    header.set_cksum();
    *header.as_bytes()
}
