//! A base backup with its WAL into a directory, over the replication protocol.
//!
//! `cargo run -p holdfast-walg --example base_backup -- host=localhost user=standby passfile=password out=backup`
//!
//! Further settings: `port`, `sslmode`, `sslrootcert`, `max_rate` (KiB/s), `idle_timeout` (s). Archives and the manifest
//! land in `out`, WAL segments in `out/pg_wal`. Without `out` the data are counted and dropped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use holdfast_fault::Fault as _;
use holdfast_walg::lsn::{Lsn, Segment};
use holdfast_walg::replication::{
    BackupEvent, BaseBackupOptions, ConnectOptions, Connection, ReplicationError, SegmentEvent, WalSegments,
    WalStream,
};
use tokio::fs::File;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::sync::watch;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    match run().await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<ReplicationError>() {
                Some(known) => eprintln!("{} ({}): {known}", known.class(), known.reason()),
                None => eprintln!("{error}"),
            }
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let (options, backup_options, out) = settings()?;
    if let Some(out) = &out {
        std::fs::create_dir_all(out.join("pg_wal"))?;
    }

    let mut wal = Connection::connect(&options).await?;
    let identity = wal.identify_system().await?;
    let size = wal.wal_segment_size().await?;
    println!(
        "server {} system {} timeline {} at {} standby {}",
        wal.server_version(),
        identity.system_id,
        identity.timeline,
        identity.xlogpos,
        wal.is_in_recovery().await?
    );
    match wal.show("data_directory").await {
        Ok(directory) => println!("data directory {directory}"),
        Err(error) if error.is_permission_denied() => println!("data directory: {error}"),
        Err(error) => return Err(error.into()),
    }
    let slot = format!("holdfast_{}", std::process::id());
    wal.create_temporary_slot(&slot).await?;

    let began = Instant::now();
    let mut backup = Connection::connect(&options)
        .await?
        .base_backup(&backup_options)
        .await?;
    println!(
        "backup from {} on timeline {}: {:?}",
        backup.start_lsn(),
        backup.timeline(),
        backup.tablespaces()
    );
    let first = Segment::containing(backup.start_lsn(), backup.timeline(), size);
    let stream = wal
        .start_physical(Some(&slot), first.start(size), backup.timeline())
        .await?;
    let (until, limit) = watch::channel(None);
    let segments = WalSegments::starting_with(first, size);
    let directory = out.as_ref().map(|out| out.join("pg_wal"));
    let receiver = tokio::spawn(receive_wal(stream, segments, directory, size, limit));

    let (mut file, mut bytes, mut pieces): (Option<BufWriter<File>>, u64, u64) = (None, 0, 0);
    while let Some(event) = backup.next().await? {
        let begins = match event {
            BackupEvent::Data(data) => {
                bytes += data.len() as u64;
                pieces += 1;
                if let Some(file) = &mut file {
                    file.write_all(&data).await?;
                }
                continue;
            }
            BackupEvent::Progress(_) => continue,
            BackupEvent::Archive { name, location } => {
                println!("{name} {location:?}");
                name
            }
            BackupEvent::ManifestStarted => "backup_manifest".to_owned(),
        };
        if let Some(mut done) = file.take() {
            done.flush().await?;
        }
        if let Some(out) = &out {
            file = Some(BufWriter::new(File::create(out.join(begins)).await?));
        }
    }
    if let Some(mut done) = file.take() {
        done.flush().await?;
    }
    let end = backup.end().ok_or("no end")?;
    backup.close().await?;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "backup to {} on timeline {}: {bytes} bytes in {pieces} pieces, {seconds:.2} s",
        end.finish_lsn, end.timeline
    );
    until.send(Some(end.finish_lsn))?;
    println!("wal segments: {}", receiver.await??);
    Ok(())
}

/// Reads the arguments.
fn settings() -> Result<(ConnectOptions, BaseBackupOptions, Option<PathBuf>), Failure> {
    let mut settings = BTreeMap::new();
    for argument in std::env::args().skip(1) {
        let (name, value) = argument.split_once('=').ok_or("arguments are name=value")?;
        settings.insert(name.to_owned(), value.to_owned());
    }
    let mut options = ConnectOptions::new(
        settings.remove("host").ok_or("host= is missing")?,
        settings.remove("user").ok_or("user= is missing")?,
    );
    let mut backup_options = BaseBackupOptions::default();
    let mut out = None;
    for (name, value) in settings {
        match name.as_str() {
            "port" => options.port = value.parse()?,
            "sslmode" => options.ssl_mode = value.parse()?,
            "sslrootcert" => options.root_certificates = Some(std::fs::read(value)?.into()),
            "passfile" => options.password = Some(std::fs::read_to_string(value)?.trim_end().into()),
            "idle_timeout" => options.idle_timeout = Duration::from_secs(value.parse()?),
            "max_rate" => backup_options.max_rate_kib = Some(value.parse()?),
            "out" => out = Some(PathBuf::from(value)),
            _ => return Err(format!("{name} is no setting").into()),
        }
    }
    Ok((options, backup_options, out))
}

/// Stores WAL until the position that `limit` will hold has come.
async fn receive_wal(
    mut stream: WalStream,
    mut segments: WalSegments,
    directory: Option<PathBuf>,
    size: holdfast_walg::lsn::SegmentSize,
    mut limit: watch::Receiver<Option<Lsn>>,
) -> Result<usize, Failure> {
    let (mut file, mut count) = (None, 0);
    let reached = |position: Lsn, limit: Option<Lsn>| limit.is_some_and(|limit| position >= limit);
    loop {
        let known = *limit.borrow_and_update();
        if reached(segments.position(), known) {
            break;
        }
        let chunk = tokio::select! {
            chunk = stream.next() => chunk?.ok_or("the timeline ended")?,
            changed = limit.changed() => {
                changed?;
                continue;
            }
        };
        for event in segments.push(chunk)?.collect::<Vec<_>>() {
            count += store(event, directory.as_deref(), size, &mut file).await?;
        }
        stream.acknowledge(segments.position());
    }
    for event in segments.pad().collect::<Vec<_>>() {
        count += store(event, directory.as_deref(), size, &mut file).await?;
    }
    stream.finish().await?;
    Ok(count)
}

async fn store(
    event: SegmentEvent,
    directory: Option<&Path>,
    size: holdfast_walg::lsn::SegmentSize,
    file: &mut Option<File>,
) -> Result<usize, Failure> {
    match (event, directory) {
        (SegmentEvent::Begin(segment), Some(directory)) => {
            *file = Some(File::create(directory.join(segment.file_name(size))).await?);
        }
        (SegmentEvent::Data(data), Some(_)) => {
            if let Some(file) = file {
                file.write_all(&data).await?;
            }
        }
        (SegmentEvent::End(_), _) => {
            if let Some(mut done) = file.take() {
                done.flush().await?;
            }
            return Ok(1);
        }
        _ => {}
    }
    Ok(0)
}
