//! What became of the entries of a directory, in 20 bytes for each: a directory may have a million.

use crate::content::{ContentId, Hash, Prefix};
use crate::object::ObjectId;

/// Bytes of the hash that repositories have unless another one was chosen. Objects with longer ones take 36 bytes more.
const HASH: usize = 16;

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// It is still to come.
    Open,
    /// It is a directory that is still to come, and this is what it was in an older snapshot.
    Before(ObjectId),
    /// It is not in the snapshot: it failed.
    Left,
    /// It is stored.
    Stored(ObjectId),
}

/// What became of each entry of a directory.
#[derive(Debug, Default)]
pub(super) struct Slots {
    packed: Vec<Packed>,
    /// The objects that do not fit.
    long: Vec<ObjectId>,
}

#[derive(Clone, Copy, Debug)]
enum Packed {
    Open,
    Left,
    Before(Short),
    Stored(Short),
    /// Where in the list of those that do not fit.
    BeforeLong(u32),
    StoredLong(u32),
}

/// An object with a hash of the usual length.
#[derive(Clone, Copy, Debug)]
struct Short {
    indirection: u8,
    /// 0 is none.
    prefix: u8,
    hash: [u8; HASH],
}

impl Short {
    /// None if the object does not fit.
    fn pack(object: &ObjectId) -> Option<Self> {
        if object.is_compressed() {
            return None;
        }
        let content = object.innermost();
        Some(Self {
            indirection: object.indirection(),
            prefix: content.prefix().map_or(0, Prefix::letter),
            hash: content.hash().as_bytes().try_into().ok()?,
        })
    }

    fn unpack(&self) -> ObjectId {
        let hash = Hash::truncate(&self.hash, HASH);
        let object = ObjectId::direct(ContentId::new(Prefix::new(self.prefix), hash));
        (0..self.indirection).fold(object, |object, _| object.listed_by())
    }
}

impl Slots {
    /// So many entries, all still to come.
    pub(super) fn new(entries: usize) -> Self {
        Self {
            packed: vec![Packed::Open; entries],
            long: Vec::new(),
        }
    }

    /// What became of an entry; one that is not there is still to come.
    pub(super) fn get(&self, index: usize) -> Slot {
        let long = |at: &u32| self.long.get(*at as usize).copied();
        match self.packed.get(index) {
            None | Some(Packed::Open) => Slot::Open,
            Some(Packed::Left) => Slot::Left,
            Some(Packed::Before(object)) => Slot::Before(object.unpack()),
            Some(Packed::Stored(object)) => Slot::Stored(object.unpack()),
            Some(Packed::BeforeLong(at)) => long(at).map_or(Slot::Open, Slot::Before),
            Some(Packed::StoredLong(at)) => long(at).map_or(Slot::Open, Slot::Stored),
        }
    }

    /// Whether an entry is stored.
    pub(super) fn is_stored(&self, index: usize) -> bool {
        matches!(
            self.packed.get(index),
            Some(Packed::Stored(_) | Packed::StoredLong(_))
        )
    }

    /// Says what became of an entry.
    pub(super) fn set(&mut self, index: usize, slot: Slot) {
        let Some(place) = self.packed.get_mut(index) else {
            return;
        };
        *place = match slot {
            Slot::Open => Packed::Open,
            Slot::Left => Packed::Left,
            Slot::Before(object) => match Short::pack(&object) {
                Some(short) => Packed::Before(short),
                None => Packed::BeforeLong(keep(&mut self.long, *place, object)),
            },
            Slot::Stored(object) => match Short::pack(&object) {
                Some(short) => Packed::Stored(short),
                None => Packed::StoredLong(keep(&mut self.long, *place, object)),
            },
        };
    }
}

/// Keeps an object that does not fit where the entry had one before, or behind the others.
fn keep(long: &mut Vec<ObjectId>, before: Packed, object: ObjectId) -> u32 {
    if let Packed::BeforeLong(at) | Packed::StoredLong(at) = before
        && let Some(place) = long.get_mut(at as usize)
    {
        *place = object;
        return at;
    }
    long.push(object);
    // A directory has at most as many names as fit into 4 GiB.
    u32::try_from(long.len() - 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_comes_back() {
        assert_eq!(size_of::<Packed>(), 20);
        let mut slots = Slots::new(3);
        let hash = "0123456789abcdef".repeat(2);
        let long = "01234567".repeat(8);
        let objects = [
            hash.clone(),
            format!("k{hash}"),
            format!("IIx{hash}"),
            format!("Z{hash}"),
            long.clone(),
            format!("Ik{long}"),
            "k00ff".to_owned(),
        ];
        for object in objects {
            let object: ObjectId = object.parse().unwrap();
            for slot in [Slot::Before(object), Slot::Stored(object)] {
                slots.set(1, slot);
                assert_eq!(slots.get(1), slot);
                assert_eq!(slots.is_stored(1), slot == Slot::Stored(object));
            }
        }
        // One entry after the other took this place.
        assert!(slots.long.len() <= 4, "{:?}", slots.long);
        for slot in [Slot::Left, Slot::Open] {
            slots.set(1, slot);
            assert_eq!((slots.get(1), slots.is_stored(1)), (slot, false));
        }
        assert_eq!(
            (slots.get(0), slots.get(2), slots.get(3)),
            (Slot::Open, Slot::Open, Slot::Open)
        );
        slots.set(3, Slot::Left);
    }
}
