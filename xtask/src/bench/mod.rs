//! `cargo xtask bench NAME`: measures against the peers, side by side in one run.

use anyhow::Result;

mod pg_backup;
mod volumes;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    name: Name,
}

#[derive(clap::Subcommand)]
enum Name {
    /// PostgreSQL base backups: our agent and `pg_basebackup`, on the cluster in use.
    PgBackup(pg_backup::Args),
    /// Volumes: our agent, kopia and restic, on one S3 server of this machine.
    Volumes(volumes::Args),
    /// Run one program, and write what it took to a file.
    #[command(hide = true)]
    Measured(volumes::MeasuredArgs),
}

/// Runs the measurement.
pub(crate) fn run(args: Args) -> Result<()> {
    match args.name {
        Name::PgBackup(args) => pg_backup::run(args),
        Name::Volumes(args) => volumes::run(&args),
        Name::Measured(args) => volumes::run_measured(&args),
    }
}

/// The middle one; the mean of the two in the middle when their number is even.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    #[expect(clippy::float_cmp, reason = "exact by construction")]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
