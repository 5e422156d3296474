//! Backups that are to end while the repository does not answer.

use std::time::Instant;

use super::*;
use crate::upload::list::Listing;
use crate::upload::previous::compare;

/// How long the end may take; threads that hang are waited for longer.
const SOON: Duration = Duration::from_secs(2);

/// A repository from which nothing is read any more, once it is told so.
#[derive(Clone)]
struct Silent {
    memory: Memory,
    mute: Arc<AtomicBool>,
    /// Whether something waits for an answer.
    asked: Arc<AtomicBool>,
}

impl Silent {
    fn new(memory: &Memory) -> Self {
        Self {
            memory: memory.clone(),
            mute: Arc::default(),
            asked: Arc::default(),
        }
    }

    async fn answer(&self) {
        if self.mute.load(Ordering::SeqCst) {
            self.asked.store(true, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl ContentSource for Silent {
    async fn get(&self, id: &ContentId) -> KopiaResult<Vec<u8>> {
        self.answer().await;
        self.memory.contents.get(id).await
    }

    async fn length(&self, id: &ContentId) -> KopiaResult<u64> {
        self.answer().await;
        self.memory.contents.length(id).await
    }
}

#[async_trait]
impl BackupTarget for Silent {
    fn sink(&self) -> Arc<dyn ContentSink> {
        self.memory.sink()
    }

    fn source(&self) -> Arc<dyn ContentSource> {
        Arc::new(self.clone())
    }

    fn splitter(&self) -> KopiaResult<Splitter> {
        self.memory.splitter()
    }

    async fn flush(&self) -> KopiaResult<()> {
        self.memory.flush().await
    }

    fn now(&self) -> Timestamp {
        self.memory.now()
    }
}

/// Cancels a backup as soon as it waits for an answer.
async fn stops(target: Silent, backup: Backup, mut manifests: Manifests) {
    let cancel = CancellationToken::new();
    let backup = backup.cancelled_by(cancel.clone());
    let asked = Arc::clone(&target.asked);
    let running = tokio::spawn(async move { backup.run(&target, &mut manifests).await });
    while !asked.load(Ordering::SeqCst) {
        assert!(!running.is_finished(), "it never asked");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let begun = Instant::now();
    cancel.cancel();
    let result = tokio::time::timeout(SOON, running).await;
    let result = result.expect("it goes on").unwrap();
    assert!(matches!(result, Err(KopiaError::Cancelled)), "{result:?}");
    assert!(begun.elapsed() < SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_compares_with_older_ones_can_be_cancelled() {
    let folder = sample();
    let memory = Memory::new("FIXED");
    let before = run(&memory, &folder, BackupOptions::default()).await.unwrap();
    let backup = backup(&folder, BackupOptions::default()).parents(vec![before.snapshot]);
    let target = Silent::new(&memory);
    target.mute.store(true, Ordering::SeqCst);
    stops(target, backup, memory.manifests().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_looks_for_its_policy_can_be_cancelled() {
    let folder = sample();
    let memory = Memory::new("FIXED");
    let mut manifests = memory.manifests().await;
    set_policy(&mut manifests, &info(), &Policy::default(), memory.now()).unwrap();
    backup(&folder, BackupOptions::default())
        .run(&memory, &mut manifests)
        .await
        .unwrap();
    let target = Silent::new(&memory);
    let ids = memory.contents.ids().into_iter();
    let ids = ids.filter(|id| id.prefix() == Some(Prefix::MANIFEST)).collect();
    let manifests = Manifests::load(target.source(), ids).await.unwrap();
    target.mute.store(true, Ordering::SeqCst);
    stops(target, backup(&folder, BackupOptions::default()), manifests).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_never_waits_stops_too() {
    let folder = sample();
    let memory = Memory::new("FIXED");
    let before = run(&memory, &folder, BackupOptions::default()).await.unwrap();
    let root = before.snapshot.root_object().unwrap();
    let source = memory.contents.source();
    let listing = Listing::default();
    compare(&source, &listing, &[root], true, &|| false)
        .await
        .unwrap();
    let stopped = compare(&source, &listing, &[root], true, &|| true).await;
    assert!(matches!(stopped, Err(KopiaError::Cancelled)), "{stopped:?}");
}
