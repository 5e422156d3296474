//! Where the backups are.

use holdfast_runtime::environment::Environment;
use holdfast_store::{RetryPolicy, Store, StoreConfig};

use super::args::LocationArgs;
use super::failure::Failure;
use super::report::FailureReason;

/// Opens the storage at the place that the arguments name; `major` is the server's version, where it is known.
pub(super) fn open(
    args: &LocationArgs,
    environment: &Environment,
    major: Option<u32>,
) -> Result<Store, Failure> {
    let mut config = StoreConfig::from_variables(environment.variables())?;
    let retry = RetryPolicy {
        total: args.storage_patience,
        ..RetryPolicy::default()
    };
    if let Some(path) = &args.path {
        // What a report calls the path is the whole of it.
        path.trim_matches('/').clone_into(&mut config.prefix);
        return Ok(Store::open(&config, retry)?);
    }
    let store = Store::open(&config, retry)?;
    let Some(scope) = &args.scope_path else {
        return Ok(store);
    };
    let Some(major) = args.pg_major.or(major) else {
        return Err(Failure::new(
            FailureReason::InvalidArguments,
            "--scope-path needs --pg-major here",
        ));
    };
    Ok(store.within(scope)?.within(&major.to_string())?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    fn place(path: Option<&str>, scope: Option<&str>, major: Option<u32>) -> Result<String, FailureReason> {
        let variables = [
            ("WALG_S3_PREFIX", "s3://pg/base"),
            ("AWS_ENDPOINT", "http://127.0.0.1:1"),
        ];
        let variables: BTreeMap<String, String> = variables
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        let args = LocationArgs {
            path: path.map(str::to_owned),
            scope_path: scope.map(str::to_owned),
            pg_major: None,
            storage_patience: Duration::from_secs(1),
        };
        let opened = open(&args, &Environment::from(variables), major);
        opened
            .map(|store| store.location("x"))
            .map_err(|failure| failure.into_report().reason)
    }

    #[test]
    fn a_scope_lies_below_the_prefix_and_a_path_stands_for_itself() {
        assert_eq!(place(None, None, Some(15)), Ok("s3://pg/base/x".into()));
        assert_eq!(
            place(None, Some("spilo/a/wal/"), Some(15)),
            Ok("s3://pg/base/spilo/a/wal/15/x".into())
        );
        assert_eq!(
            place(Some("spilo/a/wal/15"), None, None),
            Ok("s3://pg/spilo/a/wal/15/x".into())
        );
        assert_eq!(
            place(None, Some("spilo/a/wal"), None),
            Err(FailureReason::InvalidArguments)
        );
        assert_eq!(
            place(None, Some("../up"), Some(15)),
            Err(FailureReason::StorageInvalid)
        );
    }
}
