use proptest::prelude::*;

use super::testing::MemoryContents;
use super::*;
use crate::compression::HeaderId;
use crate::content::Prefix;
use crate::error::KopiaResult;
use crate::hostile::{self, Bound};
use crate::splitter::Splitter;

const PIECE: usize = 128 << 10;

fn options(batch: usize) -> ObjectOptions {
    let splitter = Splitter::by_name("FIXED-128K").unwrap();
    ObjectOptions {
        pieces: PieceOptions {
            prefix: None,
            compression: HeaderId::NONE,
            splitter,
            batch,
        },
        list: ListOptions {
            prefix: None,
            compression: HeaderId::ZSTD_FASTEST,
            splitter,
        },
    }
}

/// Data of which no two pieces are alike.
fn data(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| ((index >> 9) ^ (index >> 17)).to_le_bytes()[0])
        .collect()
}

fn write(contents: &MemoryContents, data: &[u8], step: usize, batch: usize) -> ObjectId {
    let mut writer = ObjectWriter::new(contents.clone(), options(batch));
    data.chunks(step).try_for_each(|part| writer.write(part)).unwrap();
    writer.finish().unwrap()
}

async fn read(contents: &MemoryContents, object: ObjectId) -> KopiaResult<Vec<u8>> {
    let mut stream = ObjectStream::open(contents.source(), object)?;
    let mut data = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        data.extend(chunk);
    }
    Ok(data)
}

#[tokio::test]
async fn objects_of_all_lengths_come_back() {
    for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE] {
        let (contents, data) = (MemoryContents::default(), data(length));
        let object = write(&contents, &data, 100_003, 1);
        assert_eq!(object.content().is_some(), length <= PIECE, "{length}");
        assert_eq!(read(&contents, object).await.unwrap(), data);
        assert_eq!(
            object_length(contents.source(), object).await.unwrap(),
            length as u64
        );
        for (step, batch) in [(1 << 20, 1), (PIECE, 4), (7_001, 3)] {
            assert_eq!(write(&contents, &data, step, batch), object);
        }
        let mut writer = ObjectWriter::new(contents.clone(), options(2));
        writer.reserve(length as u64);
        let mut reader = &data[..];
        while writer.write_from(&mut reader, 50_000).unwrap().unwrap() > 0 {}
        assert_eq!(writer.finish().unwrap(), object);
    }
}

/// The list that kopia writes for 600,000 bytes with FIXED-128K.
#[test]
fn lists_are_as_kopia_writes_them() {
    let hashes = [
        "298a7d0930166e2933b906df22a7e4c0",
        "6d4f17f96e95e5e0c8637105784b6328",
        "e86de09c1f93e05f0d1a5ff510c4f093",
        "0efb04d1d61619c561172c56f92bee6a",
        "cc816fb28ec6e2ff5da9713eb52a1b7a",
    ];
    let contents = MemoryContents::default();
    let mut list = ListWriter::new(contents.clone(), options(1).list);
    for (hash, length) in hashes
        .into_iter()
        .zip([131_072, 131_072, 131_072, 131_072, 75_712])
    {
        let object = hash.parse().unwrap();
        list.push(ObjectPart { length, object }).unwrap();
    }
    let object = list.finish().unwrap().unwrap();
    let content = *object.list().unwrap().content().unwrap();
    let (text, compression) = contents.entry(&content).unwrap();
    let golden = include_bytes!("../../testdata/object/list.json");
    assert_eq!(String::from_utf8(text), String::from_utf8(golden.to_vec()));
    assert_eq!(compression, HeaderId::ZSTD_FASTEST);
    assert_eq!(content.prefix(), Some(Prefix::INDIRECT));
}

#[tokio::test]
async fn long_lists_are_lists_of_lists() {
    let contents = MemoryContents::default();
    let piece = contents.put(None, vec![7; 3], HeaderId::NONE).unwrap();
    let mut list = ListWriter::new(contents.clone(), options(1).list);
    let count = 5_000;
    for _ in 0..count {
        let object = ObjectId::direct(piece);
        list.push(ObjectPart { length: 3, object }).unwrap();
    }
    let object = list.finish().unwrap().unwrap();
    assert!(object.to_string().starts_with("IIx"), "{object}");
    let mut parts = PartStream::open(contents.source(), object).await.unwrap();
    let mut offset = 0;
    while let Some(part) = parts.next().await.unwrap() {
        assert_eq!((part.offset, part.length, part.content), (offset, 3, piece));
        offset += 3;
    }
    assert_eq!(offset, 3 * count);
}

#[tokio::test]
async fn parts_become_one_object() {
    let (contents, data) = (MemoryContents::default(), data(4 * PIECE));
    let mut list = ListWriter::new(contents.clone(), options(1).list);
    // Parts of two and a half pieces; the last one is empty, as kopia's is when the length is a multiple.
    for part in data.chunks(2 * PIECE).chain([&[][..]]) {
        let mut pieces = PieceWriter::new(contents.clone(), options(1).pieces);
        pieces.write(part).unwrap();
        let stored = pieces.finish().unwrap();
        stored.into_iter().try_for_each(|part| list.push(part)).unwrap();
    }
    assert_eq!(list.length(), data.len() as u64);
    let object = list.finish().unwrap().unwrap();
    assert_eq!(read(&contents, object).await.unwrap(), data);
    let list = object.list().unwrap();
    let text = String::from_utf8(read(&contents, list).await.unwrap()).unwrap();
    let empty = MemoryContents::id(None, b"");
    assert!(
        text.ends_with(&format!("{{\"s\":524288,\"o\":\"{empty}\"}}]}}\n")),
        "{text}"
    );
}

#[tokio::test]
async fn checkpoints_are_objects_of_what_is_stored() {
    let (contents, data) = (MemoryContents::default(), data(4 * PIECE));
    let mut writer = ObjectWriter::new(contents.clone(), options(3));
    assert_eq!(writer.checkpoint().unwrap(), None);
    for end in 1..=3 {
        writer.write(&data[(end - 1) * PIECE..end * PIECE]).unwrap();
        writer.write(&[]).unwrap();
        let object = writer.checkpoint().unwrap().unwrap();
        assert_eq!(read(&contents, object).await.unwrap(), data[..end * PIECE]);
    }
    writer.write(&data[3 * PIECE..]).unwrap();
    assert_eq!(read(&contents, writer.finish().unwrap()).await.unwrap(), data);
}

#[tokio::test]
async fn ranges_are_read() {
    let (contents, data) = (MemoryContents::default(), data(3 * PIECE + 10));
    let object = write(&contents, &data, 1 << 20, 1);
    let length = data.len();
    for (start, end) in [
        (0, 1),
        (PIECE - 1, PIECE + 1),
        (5, 3 * PIECE),
        (length - 1, length + 9),
        (length, length + 1),
    ] {
        let range = start as u64..end as u64;
        let expected = &data[start..end.min(length)];
        assert_eq!(
            read_range(contents.source(), object, range).await.unwrap(),
            expected
        );
    }
    assert_eq!(read_range(contents.source(), object, 5..5).await.unwrap(), b"");
}

/// An object whose list is this text.
fn listed(contents: &MemoryContents, text: &str) -> ObjectId {
    let list = contents
        .put(Some(Prefix::INDIRECT), text.into(), HeaderId::NONE)
        .unwrap();
    ObjectId::direct(list).listed_by()
}

#[tokio::test]
async fn lists_within_lists_are_followed() {
    let contents = MemoryContents::default();
    let piece = contents.put(None, b"abc".to_vec(), HeaderId::NONE).unwrap();
    let inner = listed(
        &contents,
        &format!(r#"{{"entries":[{{"l":3,"o":"{piece}"}},{{"s":3,"l":3,"o":"{piece}"}}]}}"#),
    );
    let text = |length: u64| {
        format!(r#"{{"entries":[{{"l":3,"o":"{piece}"}},{{"s":3,"l":{length},"o":"{inner}"}}]}}"#)
    };
    let object = listed(&contents, &text(6));
    assert_eq!(read(&contents, object).await.unwrap(), b"abcabcabc");
    assert!(read(&contents, listed(&contents, &text(5))).await.is_err());
}

/// Before index version 2, kopia compressed the pieces of objects, not contents.
#[tokio::test]
async fn pieces_may_be_compressed_themselves() {
    let (contents, text) = (
        MemoryContents::default(),
        b"the same again and again, ".repeat(100),
    );
    let packed = crate::compression::compress(HeaderId::ZSTD, &text)
        .unwrap()
        .unwrap();
    let piece = contents.put(None, packed, HeaderId::NONE).unwrap();
    let direct: ObjectId = format!("Z{piece}").parse().unwrap();
    assert_eq!(read(&contents, direct).await.unwrap(), text);
    assert_eq!(object_length(contents.source(), direct).await.unwrap(), 2600);
    let list = |length: u64| {
        listed(
            &contents,
            &format!(r#"{{"entries":[{{"l":{length},"o":"{direct}"}}]}}"#),
        )
    };
    assert_eq!(read(&contents, list(2600)).await.unwrap(), text);
    for wrong in [0, 2599, 2601, u64::MAX] {
        assert!(read(&contents, list(wrong)).await.is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn damaged_lists_are_refused() {
    let contents = MemoryContents::default();
    let piece = contents.put(None, b"abc".to_vec(), HeaderId::NONE).unwrap();
    let entries = [
        format!(r#"{{"s":1,"l":3,"o":"{piece}"}}"#),
        format!(r#"{{"l":3,"o":"{piece}"}},{{"s":2,"l":3,"o":"{piece}"}}"#),
        format!(r#"{{"l":2,"o":"{piece}"}}"#),
        format!(r#"{{"l":-3,"o":"{piece}"}}"#),
        format!(
            r#"{{"l":3,"o":"{piece}"}},{{"s":3,"l":{},"o":"{piece}"}}"#,
            u64::MAX
        ),
        r#"{"l":3,"o":""}"#.to_owned(),
        r#"{"l":3}"#.to_owned(),
        "7".to_owned(),
    ];
    for entries in entries {
        let object = listed(
            &contents,
            &format!(r#"{{"stream":"kopia:indirect","entries":[{entries}]}}"#),
        );
        assert!(read(&contents, object).await.is_err(), "{entries}");
    }
    let object = listed(&contents, &format!(r#"{{"entries":[{{"l":3,"o":"{piece}"}}"#));
    assert!(read(&contents, object).await.is_err());
    let missing = MemoryContents::id(None, b"missing");
    assert!(read(&contents, ObjectId::direct(missing)).await.is_err());
}

proptest! {
    #[test]
    fn any_list_is_harmless(text: Vec<u8>) {
        let contents = MemoryContents::default();
        let list = contents.put(Some(Prefix::INDIRECT), text, HeaderId::NONE).unwrap();
        let object = ObjectId::direct(list).listed_by();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _ = runtime.block_on(read(&contents, object));
    }
}

#[test]
fn hostile_lists_are_harmless() {
    let golden = include_bytes!("../../testdata/object/list.json");
    let nested = br#"{"stream":"kopia:indirect","entries":[{"l":3,"o":"Ix00ff"},{"s":3,"l":4,"o":"Z00"}]}"#;
    hostile::check(&[golden, nested], Bound::new(32 << 10, 60), |text| {
        let contents = MemoryContents::default();
        let list = contents
            .put(Some(Prefix::INDIRECT), text.to_vec(), HeaderId::NONE)
            .unwrap();
        let object = ObjectId::direct(list).listed_by();
        let length = futures::executor::block_on(object_length(contents.source(), object));
        let data = futures::executor::block_on(read(&contents, object));
        drop((length, data));
    });
}
