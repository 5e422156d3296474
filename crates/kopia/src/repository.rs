//! A repository that is open: the parts put together.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use holdfast_store::{ByteBudget, Secret};
use jiff::Timestamp;

use crate::blob::BlobStorage;
use crate::compression::HeaderId;
use crate::content::{ContentReader, ContentWriter, Parts, Prefix, Shared, WriterOptions};
use crate::disk_cache::{CacheOptions, CachedBlobs};
use crate::epoch::Clock;
use crate::error::{KopiaError, KopiaResult};
use crate::format::{CreateOptions, RepositoryFormat};
use crate::index::CommittedIndex;
use crate::manifest::Manifests;

/// Everything that may be in flight, in bytes: 64 MiB.
pub const MEMORY: u64 = 64 << 20;
/// Of these, packs that are being written: three of the length from which one may be finished, and an open one of metadata.
const PACKS: u64 = 40 << 20;
/// Of these, windows of metadata packs.
const METADATA_CACHE: u64 = 4 << 20;
/// Of these, what the allocator takes beside the buffers of many small files.
const OVERHEAD: u64 = 4 << 20;

/// How the memory for everything in flight is divided, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Packs that are being written: open ones and those on their way.
    pub packs: u64,
    /// Buffers of data read: of files for a backup, of packs for a restore ([`Repository::buffers`]). Whoever only reads
    /// the repository may give the share of the packs to these.
    pub buffers: u64,
    /// Windows of metadata packs that are kept.
    pub metadata_cache: u64,
}

impl MemoryLimits {
    /// For a backup: most of it for packs.
    pub const fn backup() -> Self {
        Self {
            packs: PACKS,
            buffers: MEMORY - PACKS - METADATA_CACHE - OVERHEAD,
            metadata_cache: METADATA_CACHE,
        }
    }

    /// For a restore, which writes no packs.
    pub const fn restore() -> Self {
        Self {
            packs: 0,
            buffers: MEMORY - METADATA_CACHE,
            metadata_cache: METADATA_CACHE,
        }
    }
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self::backup()
    }
}

/// How a repository is opened.
#[derive(Clone)]
pub struct ConnectOptions {
    /// A directory for files without names, in which indexes are looked up: some 160 bytes for each content.
    pub scratch: PathBuf,
    /// How the memory is divided.
    pub memory: MemoryLimits,
    /// A cache on disk for the next time the repository is opened; none unless it is asked for.
    pub cache: Option<CacheOptions>,
    /// Tells the time.
    pub clock: Clock,
}

impl ConnectOptions {
    /// With the clock of the system and the memory divided for a backup.
    pub fn new(scratch: impl Into<PathBuf>) -> Self {
        Self {
            scratch: scratch.into(),
            memory: MemoryLimits::default(),
            cache: None,
            clock: system_clock(),
        }
    }

    /// With other limits.
    #[must_use]
    pub fn memory(mut self, memory: MemoryLimits) -> Self {
        self.memory = memory;
        self
    }

    /// With a cache on disk.
    #[must_use]
    pub fn cache(mut self, cache: impl Into<Option<CacheOptions>>) -> Self {
        self.cache = cache.into();
        self
    }

    /// With another clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("scratch", &self.scratch)
            .field("memory", &self.memory)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

/// The clock of the system.
pub fn system_clock() -> Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one clock of this crate; all others are handed in"
    )]
    Arc::new(Timestamp::now)
}

/// A repository that is open for reading. Clones share everything. To write, make a [`writer`](Self::writer).
#[derive(Clone)]
pub struct Repository {
    parts: Parts,
    contents: ContentReader,
    buffers: ByteBudget,
    memory: MemoryLimits,
}

impl Repository {
    /// Opens a repository: reads its description with the password, and its indexes.
    ///
    /// # Errors
    ///
    /// [`NotARepository`](crate::KopiaError::NotARepository), [`WrongPassword`](crate::KopiaError::WrongPassword),
    /// [`Unsupported`](crate::KopiaError::Unsupported), [`Corrupt`](crate::KopiaError::Corrupt), those of the storage
    /// and of the scratch directory.
    pub async fn connect(
        storage: Arc<dyn BlobStorage>,
        password: &Secret,
        options: ConnectOptions,
    ) -> KopiaResult<Self> {
        let format = RepositoryFormat::load(storage.as_ref(), password).await?;
        Self::open(storage, Arc::new(format), options).await
    }

    /// Creates a repository, as `kopia repository create` does, and opens it.
    ///
    /// # Errors
    ///
    /// [`RepositoryExists`](crate::KopiaError::RepositoryExists), [`Argument`](crate::KopiaError::Argument), and those
    /// of [`connect`](Self::connect).
    pub async fn create(
        storage: Arc<dyn BlobStorage>,
        password: &Secret,
        create: &CreateOptions,
        options: ConnectOptions,
    ) -> KopiaResult<Self> {
        let format = RepositoryFormat::create(storage.as_ref(), password, create, (options.clock)()).await?;
        Self::open(storage, Arc::new(format), options).await
    }

    /// Opens a repository whose description was read.
    pub(crate) async fn open(
        storage: Arc<dyn BlobStorage>,
        format: Arc<RepositoryFormat>,
        options: ConnectOptions,
    ) -> KopiaResult<Self> {
        let storage: Arc<dyn BlobStorage> = match &options.cache {
            Some(cache) => Arc::new(CachedBlobs::open(storage, cache, &format.hasher).await?),
            None => storage,
        };
        let clock = options.clock;
        let index = CommittedIndex::open(
            Arc::clone(&storage),
            Arc::clone(&format),
            &options.scratch,
            clock.clone(),
        )
        .await?;
        let parts = Parts {
            storage,
            format,
            index: Arc::new(index),
            clock,
        };
        Ok(Self {
            contents: ContentReader::new(parts.clone(), options.memory.metadata_cache),
            parts,
            buffers: ByteBudget::new(options.memory.buffers),
            memory: options.memory,
        })
    }

    /// Takes in what others have written since the repository was opened or last refreshed.
    pub async fn refresh(&self) -> KopiaResult<()> {
        self.parts.index.refresh().await
    }

    /// A session that writes. Must be called within a tokio runtime of several threads, which does the uploads.
    /// [`WriterOptions::pack_memory`] is taken from [`MemoryLimits`].
    pub fn writer(&self, options: WriterOptions) -> KopiaResult<RepositoryWriter> {
        let options = WriterOptions {
            pack_memory: self.memory.packs,
            ..options
        };
        let shared = Shared::new(self.parts.clone(), options)?;
        self.contents.see(&shared);
        Ok(RepositoryWriter {
            repository: self.clone(),
            contents: ContentWriter::new(shared),
        })
    }

    /// Its manifests, as of the last refresh and with what was flushed here.
    ///
    /// # Errors
    ///
    /// Those of reading the local index and the manifests' contents.
    pub async fn manifests(&self) -> KopiaResult<Manifests> {
        match self.load_manifests().await {
            // Another client has compacted them since the index was read.
            Err(KopiaError::ContentNotFound { .. }) => {
                self.refresh().await?;
                self.load_manifests().await
            }
            loaded => loaded,
        }
    }

    async fn load_manifests(&self) -> KopiaResult<Manifests> {
        let mut contents = Vec::new();
        for info in self.parts.index.contents_of(Some(Prefix::MANIFEST))? {
            let info = info?;
            if !info.deleted {
                contents.push(info.id);
            }
        }
        Manifests::load(Arc::new(self.contents.clone()), contents).await
    }

    /// Where its blobs are.
    pub fn storage(&self) -> &Arc<dyn BlobStorage> {
        &self.parts.storage
    }

    /// How it is hashed, encrypted and laid out.
    pub fn format(&self) -> &Arc<RepositoryFormat> {
        &self.parts.format
    }

    /// Its index as of the last refresh, with what was written here and flushed.
    pub fn index(&self) -> &Arc<CommittedIndex> {
        &self.parts.index
    }

    /// Its contents, to be read.
    pub fn contents(&self) -> &ContentReader {
        &self.contents
    }

    /// The budget for buffers of data that was read.
    pub fn buffers(&self) -> &ByteBudget {
        &self.buffers
    }

    /// The time, as this repository sees it.
    pub fn now(&self) -> Timestamp {
        (self.parts.clock)()
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository")
            .field("storage", &self.parts.storage)
            .field("format", &self.parts.format)
            .finish_non_exhaustive()
    }
}

/// A repository that is open for writing: a session. What is written is there for others once it is
/// [flushed](Self::flush), and is lost otherwise. Clones share everything.
#[derive(Clone, Debug)]
pub struct RepositoryWriter {
    repository: Repository,
    contents: ContentWriter,
}

impl RepositoryWriter {
    /// The repository, which sees what this session has written.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Where contents are put.
    pub fn contents(&self) -> &ContentWriter {
        &self.contents
    }

    /// Puts all manifests into one content if they are in many, as kopia does whenever it opens a repository for writing;
    /// whether that was done. To be called when `manifests` were just loaded, and nothing else is being written: what
    /// was put before is committed, too. Must be called within a tokio runtime of several threads.
    ///
    /// Whoever reads the repository meanwhile, or after this was ended half-way, sees all manifests: the new content and
    /// the deletion of the old ones are in one index blob. If another client compacts at the same time, nothing is done.
    ///
    /// # Errors
    ///
    /// Those of reading the manifests and of [`ContentWriter::flush`].
    pub async fn compact_manifests(&self, manifests: &mut Manifests) -> KopiaResult<bool> {
        if !manifests.are_scattered() {
            return Ok(false);
        }
        self.repository.refresh().await?;
        let index = self.repository.index();
        for content in manifests.contents() {
            if !index.contains(content)? {
                return Ok(false);
            }
        }
        let data = manifests.compaction(self.repository.now()).await?;
        // It waits if too much is being uploaded.
        let into = tokio::task::block_in_place(|| {
            self.contents
                .put(Some(Prefix::MANIFEST), data, HeaderId::ZSTD_FASTEST)
        })?;
        let mut replaced = manifests.contents().to_vec();
        replaced.retain(|content| *content != into);
        self.contents.flush_deleting(&replaced).await?;
        manifests.compacted(into);
        Ok(true)
    }

    /// Commits all contents that were put; see [`ContentWriter::flush`].
    pub async fn flush(&self) -> KopiaResult<()> {
        self.contents.flush().await
    }
}
