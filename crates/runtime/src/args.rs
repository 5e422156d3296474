//! Arguments that every deployable takes, to be flattened into its own.
//!
//! Each has an environment variable `HOLDFAST_*`, because a Deployment is easier to patch there than in a list of
//! arguments. Durations are written as `10s`, `1m30s` or in ISO 8601.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

/// Everything [`Runtime::start`](crate::Runtime::start) needs.
#[derive(Args, Clone, Debug)]
pub struct RuntimeArgs {
    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,
    /// How the API server is reached.
    #[command(flatten)]
    pub client: ClientArgs,
    /// What is watched and how much is done at once.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Who leads.
    #[command(flatten)]
    pub lease: LeaseArgs,
    /// Address of /livez, /readyz and /metrics.
    #[arg(
        long,
        env = "HOLDFAST_ADMIN_ADDRESS",
        value_name = "IP:PORT",
        default_value = "0.0.0.0:8080"
    )]
    pub admin_address: SocketAddr,
    /// How long work in flight may go on after SIGTERM; keep it below terminationGracePeriodSeconds.
    #[arg(long, env = "HOLDFAST_SHUTDOWN_GRACE", value_name = "DURATION", default_value = "20s", value_parser = duration)]
    pub shutdown_grace: Duration,
}

/// Logging.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// What is logged, as tracing's directives: `info`, `info,pg_backup=debug`.
    #[arg(long, env = "HOLDFAST_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// How a line looks.
    #[arg(long, env = "HOLDFAST_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people at a terminal.
    Text,
}

/// How the API server is reached.
#[derive(Args, Clone, Debug)]
pub struct ClientArgs {
    /// Kubeconfig file; without it $KUBECONFIG, ~/.kube/config, then the pod's service account.
    #[arg(long, env = "HOLDFAST_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; without it the current one.
    #[arg(long, env = "HOLDFAST_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// When a call to the API server that got no whole answer is given up; watches are bounded separately.
    #[arg(long, env = "HOLDFAST_API_DEADLINE", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub api_deadline: Duration,
    /// How many calls to the API server may be in flight at once.
    #[arg(long, env = "HOLDFAST_API_CONCURRENCY", value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub api_concurrency: u16,
}

/// What is watched and how much is done at once.
#[derive(Args, Clone, Debug)]
pub struct WatchArgs {
    /// Namespaces to watch, separated by commas; none means all.
    #[arg(
        long,
        env = "HOLDFAST_NAMESPACES",
        value_name = "NAMESPACE",
        value_delimiter = ','
    )]
    pub namespaces: Vec<String>,
    /// How many objects of one kind are reconciled at once.
    #[arg(long, env = "HOLDFAST_CONCURRENCY", value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
}

/// Who leads.
#[derive(Args, Clone, Debug)]
pub struct LeaseArgs {
    /// Whether only the holder of a Lease works; `false` for a DaemonSet or a single local run.
    #[arg(long, env = "HOLDFAST_LEADER_ELECTION", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_election: bool,
    /// Name of the Lease; without it `holdfast-<controller>`.
    #[arg(long, env = "HOLDFAST_LEASE_NAME", value_name = "NAME")]
    pub lease_name: Option<String>,
    /// Namespace of the Lease; without it the pod's own, or that of the kubeconfig's context.
    #[arg(long, env = "HOLDFAST_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// How long others wait after the last renewal they saw.
    #[arg(long, env = "HOLDFAST_LEASE_DURATION", value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub lease_duration: Duration,
    /// When a leader that could not renew stops its work; below the lease duration.
    #[arg(long, env = "HOLDFAST_LEASE_RENEW_DEADLINE", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub lease_renew_deadline: Duration,
    /// Time between two attempts to take or renew.
    #[arg(long, env = "HOLDFAST_LEASE_RETRY_PERIOD", value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub lease_retry_period: Duration,
}

/// Parses a duration that is longer than nothing; for clap's `value_parser`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text.parse().map_err(|e| format!("{e}"))?;
    match Duration::try_from(parsed) {
        Ok(positive) if !positive.is_zero() => Ok(positive),
        _ => Err("must be longer than nothing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory, Parser};

    use super::{LogFormat, RuntimeArgs, duration};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        runtime: RuntimeArgs,
    }

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_argument_has_an_environment_variable_of_the_project() {
        for arg in Cli::command().get_arguments() {
            let env = arg.get_env().and_then(|e| e.to_str()).unwrap_or_default();
            assert!(env.starts_with("HOLDFAST_"), "{} has {env:?}", arg.get_id());
        }
    }

    #[test]
    fn defaults_are_those_of_the_design() {
        let args = Cli::try_parse_from(["x"]).unwrap().runtime;
        assert_eq!(args.admin_address.to_string(), "0.0.0.0:8080");
        assert_eq!(args.log.log_format, LogFormat::Json);
        assert_eq!(args.client.api_deadline, Duration::from_secs(10));
        assert_eq!(args.lease.lease_duration, Duration::from_secs(15));
        assert_eq!(args.lease.lease_renew_deadline, Duration::from_secs(10));
        assert_eq!(args.lease.lease_retry_period, Duration::from_secs(2));
        assert!(args.lease.leader_election && args.watch.namespaces.is_empty());
    }

    #[test]
    fn namespaces_are_separated_by_commas() {
        let args = Cli::try_parse_from(["x", "--namespaces", "a,b", "--leader-election", "false"])
            .unwrap()
            .runtime;
        assert_eq!(args.watch.namespaces, ["a", "b"]);
        assert!(!args.lease.leader_election);
    }

    #[test]
    fn durations_need_a_unit_and_a_length() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(
            duration("0s").is_err()
                && duration("-1s").is_err()
                && duration("ten").is_err()
                && duration("5").is_err()
        );
    }
}
