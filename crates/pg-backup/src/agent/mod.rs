//! The data-plane agent: what the Job of a `PostgresBackup` runs, and what people run by hand.
//!
//! It knows no API server. It gets its work by arguments, environment and mounted files, and answers by one JSON
//! document ([`report::Report`]) on standard output and in its termination message.

mod admin;
mod args;
mod backup;
mod failure;
mod location;
pub mod report;
mod stored;

use std::process::ExitCode;
use std::time::Duration;

pub use args::Args;
use holdfast_runtime::environment::Environment;
use holdfast_runtime::shutdown::Shutdown;
use holdfast_runtime::telemetry;

use self::args::Command;
use self::failure::Failure;
use self::report::{FailureReason, Report};

/// Threads that wait for files or compress, at most.
const BLOCKING_THREADS: usize = 16;

/// Does what the arguments say; the exit code is the report's.
#[expect(
    clippy::needless_pass_by_value,
    reason = "nothing of the arguments outlives the run"
)]
pub fn run(args: Args) -> ExitCode {
    if let Err(error) = telemetry::init(&args.log) {
        eprintln!("pg-backup: {error}");
    }
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let report = match runtime {
        Ok(runtime) => {
            let report = runtime.block_on(async { dispatch(&args).await });
            // A thread that waits for a file must not keep the process alive.
            runtime.shutdown_timeout(Duration::from_secs(1));
            report
        }
        Err(error) => Err(Failure::new(
            FailureReason::Internal,
            format!("cannot start threads: {error}"),
        )),
    };
    let report = match report {
        Ok(Some(report)) => report,
        // The subcommand has printed its answer.
        Ok(None) => return ExitCode::SUCCESS,
        Err(failure) => Report::Failed(failure.into_report()),
    };
    answer(&args, &report);
    ExitCode::from(report.exit_code())
}

async fn dispatch(args: &Args) -> Result<Option<Report>, Failure> {
    holdfast_runtime::install_crypto_provider();
    let environment = Environment::read();
    let shutdown = Shutdown::on_signals()
        .map_err(|error| Failure::new(FailureReason::Internal, format!("cannot handle signals: {error}")))?;
    let cancel = shutdown.requested.clone();
    match &args.command {
        Command::Backup(backup) => backup::run(backup, &environment, &cancel)
            .await
            .map(|report| Some(Report::Succeeded(report))),
        Command::Restore(restore) => stored::restore(restore, &environment, &cancel)
            .await
            .map(|()| None),
        Command::Verify(verify) => stored::verify(verify, &environment, &cancel)
            .await
            .map(|report| Some(Report::Succeeded(report))),
        Command::List(list) => stored::list(list, &environment, &cancel).await.map(|()| None),
        Command::Delete(delete) => stored::delete(delete, &environment, &cancel)
            .await
            .map(|()| Some(Report::Deleted)),
    }
}

/// Prints the report, and writes it where Kubernetes looks.
fn answer(args: &Args, report: &Report) {
    let json = report.to_json();
    println!("{json}");
    match report {
        Report::Failed(failure) => {
            tracing::error!(reason = ?failure.reason, retry = failure.retry, "{}", failure.message);
        }
        Report::Succeeded(backup) => tracing::info!(name = %backup.backup_name, "succeeded"),
        Report::Deleted => tracing::info!("deleted"),
    }
    let asked = args.termination_message.is_some();
    let path = args
        .termination_message
        .clone()
        .unwrap_or_else(|| "/dev/termination-log".into());
    if (asked || path.exists())
        && let Err(error) = std::fs::write(&path, &json)
    {
        tracing::error!(path = %path.display(), %error, "cannot write the termination message");
    }
}
