//! Logs: one subscriber per process, JSON or text, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::args::{LogArgs, LogFormat};

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one of tracing's.
    #[error("cannot read the log filter {filter:?}")]
    Filter {
        /// The text given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Another subscriber is there already.
    #[error("cannot set up logging")]
    Init(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up logging for the whole process; call once, before anything logs.
///
/// Standard output stays free for results, so that a subcommand can print what another program reads.
pub fn init(args: &LogArgs) -> Result<(), TelemetryError> {
    let filter = filter(&args.log)?;
    let registry = tracing_subscriber::registry().with(filter);
    match args.log_format {
        LogFormat::Json => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_writer(std::io::stderr),
            )
            .try_init()?,
        LogFormat::Text => registry
            .with(
                fmt::layer()
                    .with_target(false)
                    .with_ansi(std::io::stderr().is_terminal())
                    .with_writer(std::io::stderr),
            )
            .try_init()?,
    }
    Ok(())
}

/// The filter of the process: what the user asked for, and no more than warnings from the HTTP client below.
fn filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    // kube's client logs each failed attempt at error level; every one of them is an error of ours, too, with the object's name.
    let quiet = [
        "hyper_util=warn",
        "tower=warn",
        "kube_client::client::builder=off",
    ];
    let mut filter = EnvFilter::try_new(quiet.join(",")).map_err(|source| bad_filter(text, source))?;
    for directive in text.split(',').map(str::trim).filter(|d| !d.is_empty()) {
        filter = filter.add_directive(directive.parse().map_err(|source| bad_filter(text, source))?);
    }
    Ok(filter)
}

fn bad_filter(text: &str, source: tracing_subscriber::filter::ParseError) -> TelemetryError {
    TelemetryError::Filter {
        filter: text.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn a_user_may_raise_what_is_quiet_by_default() {
        assert!(filter("info").unwrap().to_string().contains("tower=warn"));
        let raised = filter("info, tower=debug").unwrap().to_string();
        assert!(
            raised.contains("tower=debug") && !raised.contains("tower=warn"),
            "{raised}"
        );
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = filter("info,pg_backup=loud").unwrap_err().to_string();
        assert!(error.contains("pg_backup=loud"), "{error}");
    }
}
