//! What the names of index blobs say.
//!
//! `xe<epoch>` begins an epoch; `xn<epoch>_…` is an index written in it; `xs<epoch>_…` are all indexes of an epoch in one
//! set, `xr<first>_<last>_…` those of several epochs; `xw<seconds>` says that what was deleted until then is gone.

use std::collections::HashMap;

use crate::blob::BlobMetadata;

/// Begins the names of epoch markers.
pub(super) const MARKER: &str = "xe";
/// Begins the names of indexes that no compaction made.
pub(super) const UNCOMPACTED: &str = "xn";
/// Begins the names of compactions of one epoch.
pub(super) const SINGLE: &str = "xs";
/// Begins the names of compactions of several epochs.
pub(super) const RANGE: &str = "xr";
/// Begins the names of deletion watermarks.
pub(super) const WATERMARK: &str = "xw";

/// The prefix of the uncompacted indexes of an epoch.
pub(super) fn uncompacted(epoch: i64) -> String {
    format!("{UNCOMPACTED}{epoch}_")
}

/// The epoch in a name: the digits after the letters, until the first `_`.
pub(super) fn epoch_of(name: &str) -> Option<i64> {
    let first = name.split('_').next()?;
    first
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .parse()
        .ok()
}

/// The first and last epoch in the name of a range.
pub(super) fn range_of(name: &str) -> Option<(i64, i64)> {
    let mut parts = name.split('_');
    let (_, last, _) = (parts.next()?, parts.next()?, parts.next()?);
    Some((epoch_of(name)?, last.parse().ok()?))
}

/// The time in the name of a watermark, in seconds since 1970.
pub(super) fn watermark_of(name: &str) -> Option<i64> {
    /// The beginning of kopia's calendar, which means that there is none.
    const YEAR_ONE: i64 = -62_135_596_800;
    let seconds = name.strip_prefix(WATERMARK).unwrap_or(name).parse().ok()?;
    (seconds > YEAR_ONE).then_some(seconds)
}

/// The first complete set: names end in `-s<set>-c<count>`, and a set is complete with its `count`-th blob. A blob whose
/// name does not say so is a set by itself.
pub(super) fn first_complete_set(blobs: &[BlobMetadata]) -> Option<Vec<BlobMetadata>> {
    let mut sets: HashMap<&str, Vec<&BlobMetadata>> = HashMap::new();
    for blob in blobs {
        let Some((set, count)) = set_of(blob.id.as_str()) else {
            return Some(vec![blob.clone()]);
        };
        let members = sets.entry(set).or_default();
        members.push(blob);
        if u64::try_from(members.len()) == Ok(count) {
            return Some(members.iter().map(|blob| (*blob).clone()).collect());
        }
    }
    None
}

fn set_of(name: &str) -> Option<(&str, u64)> {
    let mut parts = name.split('-').skip(1);
    let set = parts.next().filter(|part| part.starts_with('s'))?;
    let count = parts.next()?.strip_prefix('c')?.parse().ok()?;
    Some((set, count))
}
