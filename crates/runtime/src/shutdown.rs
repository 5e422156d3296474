//! SIGTERM and SIGINT as a cancellation token.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Signals turned into two tokens: the first signal asks to stop, the second one insists.
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// Cancelled by the first SIGTERM or SIGINT: start nothing new, finish or hand back what is in flight.
    pub requested: CancellationToken,
    /// Cancelled by the second one: drop everything now.
    pub forced: CancellationToken,
}

impl Shutdown {
    /// Tokens that only their holder cancels; for tests and for work that ends by itself.
    pub fn manual() -> Self {
        Self {
            requested: CancellationToken::new(),
            forced: CancellationToken::new(),
        }
    }

    /// Installs the handlers; from here on the process no longer dies of SIGTERM or SIGINT by itself.
    ///
    /// # Errors
    ///
    /// The operating system refuses a handler.
    pub fn on_signals() -> io::Result<Self> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let shutdown = Self::manual();
        let tokens = shutdown.clone();
        tokio::spawn(async move {
            let name = either(&mut term, &mut int).await;
            tracing::info!(signal = name, "shutting down; a second signal stops at once");
            tokens.requested.cancel();
            let name = either(&mut term, &mut int).await;
            tracing::warn!(signal = name, "stopping at once");
            tokens.forced.cancel();
        });
        Ok(shutdown)
    }
}

async fn either(term: &mut Signal, int: &mut Signal) -> &'static str {
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}
