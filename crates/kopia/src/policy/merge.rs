//! What policies come to together.

use std::collections::BTreeSet;

use super::document::Policy;

impl Policy {
    /// The policy that several come to, the most specific first. What a more specific one sets stays; the defaults come
    /// last, unless a policy inherits nothing.
    pub(super) fn merged<'a>(policies: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut merged = Self::default();
        for policy in policies {
            merged.inherit(policy);
            if policy.no_parent {
                return merged;
            }
        }
        merged.inherit(&Self::defaults());
        merged
    }

    /// Takes over from a more general policy what is not set.
    fn inherit(&mut self, from: &Self) {
        let (files, theirs) = (&mut self.files, &from.files);
        list(&mut files.ignore, &theirs.ignore);
        files.no_parent_ignore |= theirs.no_parent_ignore;
        list(&mut files.ignore_dot_files, &theirs.ignore_dot_files);
        files.no_parent_dot_files |= theirs.no_parent_dot_files;
        option(&mut files.ignore_cache_dirs, theirs.ignore_cache_dirs);
        number(&mut files.max_file_size, theirs.max_file_size);
        option(&mut files.one_file_system, theirs.one_file_system);

        let (errors, theirs) = (&mut self.error_handling, &from.error_handling);
        option(&mut errors.ignore_file_errors, theirs.ignore_file_errors);
        option(
            &mut errors.ignore_directory_errors,
            theirs.ignore_directory_errors,
        );
        option(&mut errors.ignore_unknown_types, theirs.ignore_unknown_types);

        let (compression, theirs) = (&mut self.compression, &from.compression);
        text(&mut compression.compressor_name, &theirs.compressor_name);
        number(&mut compression.min_size, theirs.min_size);
        number(&mut compression.max_size, theirs.max_size);
        union(
            (
                &mut compression.only_compress,
                &mut compression.no_parent_only_compress,
            ),
            (&theirs.only_compress, theirs.no_parent_only_compress),
        );
        union(
            (
                &mut compression.never_compress,
                &mut compression.no_parent_never_compress,
            ),
            (&theirs.never_compress, theirs.no_parent_never_compress),
        );
        let theirs = &from.metadata_compression.compressor_name;
        text(&mut self.metadata_compression.compressor_name, theirs);
        text(&mut self.splitter.algorithm, &from.splitter.algorithm);

        let (upload, theirs) = (&mut self.upload, &from.upload);
        option(&mut upload.max_parallel_snapshots, theirs.max_parallel_snapshots);
        option(
            &mut upload.max_parallel_file_reads,
            theirs.max_parallel_file_reads,
        );
        option(
            &mut upload.parallel_upload_above_size,
            theirs.parallel_upload_above_size,
        );
    }
}

fn option<T: Copy>(value: &mut Option<T>, inherited: Option<T>) {
    *value = value.or(inherited);
}

fn number(value: &mut i64, inherited: i64) {
    if *value == 0 {
        *value = inherited;
    }
}

fn text(value: &mut String, inherited: &str) {
    if value.is_empty() {
        inherited.clone_into(value);
    }
}

fn list(value: &mut Vec<String>, inherited: &[String]) {
    if value.is_empty() {
        inherited.clone_into(value);
    }
}

/// Lists that add up, sorted, until one says that nothing more is inherited.
fn union((value, closed): (&mut Vec<String>, &mut bool), (more, last): (&[String], bool)) {
    if !*closed {
        let all: BTreeSet<_> = value.drain(..).chain(more.iter().cloned()).collect();
        value.extend(all);
        *closed = last;
    }
}
