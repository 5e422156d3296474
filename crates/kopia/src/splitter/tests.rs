use std::collections::BTreeMap;

use super::*;

const LENGTH: usize = 40 << 20;

/// 40 MiB of xorshift64 with zeros from 10 to 20 MiB: what kopia's splitters were asked to cut for the golden file.
fn stream() -> Vec<u8> {
    let mut data = Vec::with_capacity(LENGTH);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    while data.len() < LENGTH {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data[10 << 20..20 << 20].fill(0);
    data
}

fn cuts(splitter: Splitter, data: &[u8], step: usize) -> Vec<usize> {
    let (mut cuts, mut begin, mut end, mut searched) = (Vec::new(), 0, 0, 0);
    loop {
        if let Some(cut) = splitter.next_cut(&data[begin..end], searched) {
            cuts.push(cut);
            begin += cut;
            searched = 0;
        } else if end == data.len() {
            return cuts;
        } else {
            searched = end - begin;
            end = data.len().min(end + step);
        }
    }
}

fn golden() -> BTreeMap<String, Vec<usize>> {
    let text = include_str!("../../testdata/splitter/cuts.txt");
    let line = |line: &str| {
        let (name, cuts) = line.split_once(' ').unwrap();
        (
            name.to_owned(),
            cuts.split(',').map(|cut| cut.parse().unwrap()).collect(),
        )
    };
    text.lines().map(line).collect()
}

#[test]
fn cuts_are_where_kopia_cuts() {
    let (data, golden) = (stream(), golden());
    assert_eq!(golden.len(), 16);
    for (name, expected) in golden {
        let splitter = Splitter::by_name(&name).unwrap();
        assert_eq!(cuts(splitter, &data, 1 << 20), expected, "{name}");
    }
}

#[test]
fn cuts_do_not_depend_on_how_data_arrives() {
    let data = &stream()[..3 << 20];
    let splitter = Splitter::by_name("DYNAMIC-128K-BUZHASH").unwrap();
    let expected = cuts(splitter, data, data.len());
    assert!(expected.len() > 10);
    for step in [1_003, 65_536, 131_071] {
        assert_eq!(cuts(splitter, data, step), expected);
    }
}

#[test]
fn pieces_keep_within_their_bounds() {
    for (name, expected) in golden() {
        let splitter = Splitter::by_name(&name).unwrap();
        let bounds = splitter.min_size()..=splitter.max_size();
        assert!(expected.iter().all(|cut| bounds.contains(cut)), "{name}");
    }
}

#[test]
fn splitters_that_are_not_kopias_or_not_known_are_refused() {
    for name in [
        "DYNAMIC-4M-RABINKARP",
        "DYNAMIC-3M-BUZHASH",
        "FIXED-4",
        "DYNAMIC-4M",
        "fixed-4m",
    ] {
        let error = Splitter::by_name(name).unwrap_err();
        assert!(matches!(error, KopiaError::Unsupported { .. }), "{name}");
    }
    assert_eq!(
        Splitter::by_name("DYNAMIC-4M-BUZHASH").unwrap(),
        Splitter::DEFAULT
    );
}

#[test]
fn a_policy_gets_its_splitter_or_what_kopia_takes_instead_or_an_error() {
    let repository = Splitter::by_name("FIXED-1M").unwrap();
    let of = |name| Splitter::of_policy(name, repository);
    assert_eq!(of("").unwrap(), repository);
    assert_eq!(of("DYNAMIC-4M-BUZHASH").unwrap(), Splitter::DEFAULT);
    for unknown in ["MADE-UP", "DYNAMIC-3M-RABINKARP", "RABINKARP"] {
        assert_eq!(of(unknown).unwrap(), repository, "{unknown}");
    }
    let error = of("DYNAMIC-4M-RABINKARP").unwrap_err();
    assert!(
        matches!(&error, KopiaError::Unsupported { .. }) && error.to_string().contains("RABINKARP"),
        "{error}"
    );
}
