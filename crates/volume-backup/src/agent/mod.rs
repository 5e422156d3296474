//! The data plane's command line: what a Pod runs, and what people run by hand.
//!
//! It knows no API server. It gets its work by arguments, environment and mounted files, and answers by lines of JSON or by text.

mod args;
mod backup;
mod connection;
mod create;
mod failure;
mod find;
mod list;
mod malloc;
mod output;
mod password;
mod restore;
mod verify;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

pub use args::Args;
use holdfast_runtime::environment::Environment;
use holdfast_runtime::shutdown::Shutdown;
use holdfast_runtime::telemetry;
use tokio_util::sync::CancellationToken;

use self::args::Command;
use self::failure::Failure;
use self::output::Output;

/// Threads of the runtime; they wait for the network, and everything else has threads of its own.
const ASYNC_THREADS: usize = 2;

/// What every subcommand needs.
struct Context {
    environment: Environment,
    output: Arc<Output>,
    /// Cancelled by SIGTERM and SIGINT.
    cancel: CancellationToken,
    /// How often progress is printed.
    interval: Duration,
}

/// Does what the arguments say.
#[expect(
    clippy::needless_pass_by_value,
    reason = "nothing of the arguments outlives the run"
)]
pub fn run(args: Args) -> ExitCode {
    let malloc = malloc::settle();
    if let Err(error) = telemetry::init(&args.log) {
        eprintln!("volume-backup: {error}");
    }
    if let Some(error) = malloc {
        tracing::warn!(%error, "cannot start again with settings for the allocator; more memory will be used");
    }
    let output = Arc::new(Output::new(args.json));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ASYNC_THREADS)
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(dispatch(&args, Arc::clone(&output)));
            // A thread that waits for a file must not keep the process alive.
            runtime.shutdown_timeout(Duration::from_secs(1));
            result
        }
        Err(error) => Err(Failure::internal(format!("cannot start threads: {error}"))),
    };
    let code = result.unwrap_or_else(|failure| {
        output.failure(&failure);
        failure.code
    });
    ExitCode::from(code)
}

/// Runs the subcommand; its exit code.
async fn dispatch(args: &Args, output: Arc<Output>) -> Result<u8, Failure> {
    holdfast_runtime::install_crypto_provider();
    let shutdown = Shutdown::on_signals()
        .map_err(|error| Failure::internal(format!("cannot handle signals: {error}")))?;
    let context = Context {
        environment: Environment::read(),
        output,
        cancel: shutdown.requested.clone(),
        interval: args.progress_interval,
    };
    match &args.command {
        Command::Create(create) => create::run(create, &context).await,
        Command::Backup(backup) => backup::run(backup, &context).await,
        Command::Restore(restore) => restore::run(restore, &context).await,
        Command::Verify(verify) => verify::run(verify, &context).await,
        Command::List(list) => list::run(list, &context).await,
    }
}

/// Waits for something, but not longer than until the agent is told to stop.
async fn unless_cancelled<T, E: Into<Failure>>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    match cancel.run_until_cancelled(work).await {
        Some(result) => result.map_err(Into::into),
        None => Err(holdfast_kopia::KopiaError::Cancelled.into()),
    }
}
