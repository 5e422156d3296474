//! Runs and merges against a map in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::entry::{Entry, Key, supersedes};
use super::super::merge::{Merge, merge_runs, to_merge};
use super::super::packs::PackTable;
use super::super::run::{RecordLayout, Run, RunWriter};
use super::super::scratch::ScratchFile;
use super::{any_content, content};
use crate::content::{ContentId, ContentInfo};

const LAYOUT: fn() -> RecordLayout = || RecordLayout::new(16);

type Model = BTreeMap<ContentId, ContentInfo>;

fn scratch() -> ScratchFile {
    ScratchFile::new(&std::env::temp_dir()).unwrap()
}

fn add(model: &mut Model, info: &ContentInfo) {
    let known = model.entry(info.id).or_insert_with(|| info.clone());
    if supersedes(info, known) {
        *known = info.clone();
    }
}

fn model(contents: &[ContentInfo]) -> Model {
    let mut model = Model::new();
    for info in contents {
        add(&mut model, info);
    }
    model
}

fn run(packs: &PackTable, contents: &Model) -> Arc<Run> {
    let names = contents.values().map(|info| info.pack.as_str());
    let longest = names.clone().map(str::len).max().unwrap_or_default();
    let mut table = packs
        .writer(
            u32::try_from(contents.len()).unwrap(),
            u8::try_from(longest).unwrap(),
        )
        .unwrap();
    names.for_each(|name| table.add(name).unwrap());
    let numbers = table.finish().unwrap();
    let mut writer = RunWriter::new(Arc::new(scratch()), LAYOUT(), contents.len() as u64);
    for (number, info) in (0..).zip(contents.values()) {
        writer.push(&Entry::new(info, numbers.number(number))).unwrap();
    }
    Arc::new(writer.finish(Vec::new()).unwrap())
}

fn all(merge: &mut Merge, packs: &PackTable) -> Vec<ContentInfo> {
    let mut contents = Vec::new();
    while let Some(record) = merge.next().unwrap() {
        let entry = LAYOUT().decode(record).unwrap();
        contents.push(entry.with_pack(packs.name(entry.pack).unwrap()));
    }
    contents
}

proptest! {
    #[test]
    fn a_merge_is_the_newest_of_all(parts in vec(vec(any_content(), 0..80), 0..6)) {
        let packs = Arc::new(PackTable::new(scratch()));
        let runs: Vec<_> = parts.iter().map(|part| run(&packs, &model(part))).collect();
        let expected = model(&parts.concat());

        let mut merge = Merge::new(&runs, None, LAYOUT(), packs.clone()).unwrap();
        prop_assert!(all(&mut merge, &packs).iter().eq(expected.values()));

        let merged = merge_runs(runs, LAYOUT(), &packs, || Ok(scratch())).unwrap();
        prop_assert_eq!(merged.count(), expected.len() as u64);
        for info in parts.iter().flatten() {
            let entry = merged.find(&Key::of(&info.id)).unwrap().unwrap();
            prop_assert_eq!(&entry.with_pack(packs.name(entry.pack).unwrap()), &expected[&info.id]);
        }
        for letter in [0, b'g', b'm', b'z'] {
            let from = Key::first(letter);
            let mut merge = Merge::new(std::slice::from_ref(&merged), Some(&from), LAYOUT(), packs.clone()).unwrap();
            let expected = expected.values().filter(|info| Key::of(&info.id) >= from);
            prop_assert!(all(&mut merge, &packs).iter().eq(expected));
        }
    }

    #[test]
    fn few_runs_are_left(mut sizes in vec(0_u64..1 << 40, 0..40), most in 1_usize..6) {
        sizes.sort_unstable();
        let merged = to_merge(&sizes, most);
        prop_assert!(merged <= sizes.len());
        let mut smaller: u64 = sizes[..merged].iter().sum();
        let left = &sizes[merged..];
        prop_assert!(left.len() + usize::from(merged > 0) <= most);
        for size in left {
            prop_assert!(*size > 2 * smaller || smaller == 0 && merged == 0);
            smaller += size;
        }
    }
}

#[test]
fn contents_are_found_in_every_block() {
    let packs = PackTable::new(scratch());
    let contents: Model = (0..1000)
        .map(|n| content(2 * n, 7))
        .map(|info| (info.id, info))
        .collect();
    let run = run(&packs, &contents);
    for n in 0..2000 {
        let info = content(n, 7);
        let found = run.find(&Key::of(&info.id)).unwrap();
        let found = found.map(|entry| entry.with_pack(packs.name(entry.pack).unwrap()));
        assert_eq!(found, contents.get(&info.id).cloned(), "{n}");
    }
    let short: ContentId = "00ff".parse().unwrap();
    assert!(run.find(&Key::of(&short)).unwrap().is_none());
}

#[test]
fn contents_that_begin_alike_are_found() {
    let packs = PackTable::new(scratch());
    // Several blocks whose first keys have the same first eight bytes.
    let contents: Model = (0..400_u16)
        .map(|n| {
            let mut hash = [9; 16];
            hash[12..14].copy_from_slice(&n.to_be_bytes());
            let hash = crate::content::Hash::new(&hash).unwrap();
            let id = ContentId::new(None, hash);
            (id, ContentInfo { id, ..content(1, 1) })
        })
        .collect();
    let run = run(&packs, &contents);
    for id in contents.keys() {
        assert_eq!(run.find(&Key::of(id)).unwrap().unwrap().id, *id);
    }
    for other in [
        "09".repeat(16),
        "08".repeat(16),
        "0a".repeat(16),
        format!("g{}", "09".repeat(16)),
    ] {
        assert!(
            run.find(&Key::of(&other.parse().unwrap())).unwrap().is_none(),
            "{other}"
        );
    }
}

#[test]
fn more_runs_than_are_merged_at_once() {
    let packs = Arc::new(PackTable::new(scratch()));
    let contents: Vec<_> = (0..1200).map(|n| content(n, 3)).collect();
    // Sharing a file, as small index blobs do.
    let file = Arc::new(scratch());
    let runs = contents
        .iter()
        .map(|info| {
            let mut names = packs.writer(1, 60).unwrap();
            names.add(info.pack.as_str()).unwrap();
            let pack = names.finish().unwrap().number(0);
            let mut writer = RunWriter::new(file.clone(), LAYOUT(), 1);
            writer.push(&Entry::new(info, pack)).unwrap();
            Arc::new(writer.finish(vec![info.pack.clone()]).unwrap())
        })
        .collect();
    let merged = merge_runs(runs, LAYOUT(), &packs, || Ok(scratch())).unwrap();
    assert_eq!((merged.count(), merged.members().len()), (1200, 1200));
    let mut merge = Merge::new(&[merged], None, LAYOUT(), packs.clone()).unwrap();
    assert!(all(&mut merge, &packs).iter().eq(model(&contents).values()));
}

#[test]
fn a_run_has_no_more_than_was_announced() {
    let mut writer = RunWriter::new(Arc::new(scratch()), LAYOUT(), 1);
    let entry = Entry::new(&content(1, 1), 0);
    writer.push(&entry).unwrap();
    assert!(writer.push(&entry).is_err());
}
