//! From the events of one or several watches to one cache, and to what has to be reconciled. No I/O.
//!
//! A deployable that watches three namespaces has three watches of one kind, which list, break and list again independently, while the passes
//! need one cache. And an object that does not have the form of its kind must leave the cache, or passes
//! would go on with what it was before.

use std::{collections::HashMap, fmt::Debug};

use kube::{
    Resource, ResourceExt,
    runtime::{
        reflector::{ObjectRef, Store, store::Writer},
        watcher::Event,
    },
};

use super::{uid, watch::Malformed};

/// An object as it came in, or why it could not be read.
/// Boxed, for it is rare and large.
pub(super) type Read<K> = Result<K, Box<Malformed>>;

/// Namespace and name.
pub(super) type Key = (Option<String>, String);

/// What an event has changed.
#[derive(Debug)]
pub(super) struct Change<K: Resource<DynamicType = ()>> {
    /// To be reconciled.
    pub(super) changed: Vec<ObjectRef<K>>,
    /// UIDs of objects that are not in the cache any more.
    pub(super) gone: Vec<String>,
    /// To be reported.
    pub(super) malformed: Vec<Malformed>,
}

pub(super) struct Cache<K: Resource<DynamicType = ()> + Clone + 'static> {
    writer: Writer<K>,
    store: Store<K>,
    any_change: bool,
    watches: Vec<Watch<K>>,
    whole: bool,
}

/// One watch: what its current list holds so far, and whether one was whole.
struct Watch<K> {
    place: Option<String>,
    listing: HashMap<Key, K>,
    listed: bool,
}

impl<K: Resource<DynamicType = ()> + Clone + Debug + 'static> Cache<K> {
    /// A cache fed by one watch for each place, a namespace or the whole cluster; it is whole when each has listed once.
    pub(super) fn new(writer: Writer<K>, places: Vec<Option<String>>, any_change: bool) -> Self {
        let store = writer.as_reader();
        let watch = |place| Watch {
            place,
            listing: HashMap::new(),
            listed: false,
        };
        let watches = places.into_iter().map(watch).collect();
        Self {
            writer,
            store,
            any_change,
            watches,
            whole: false,
        }
    }

    /// Takes an event of the watch number `index` in.
    pub(super) fn take(&mut self, index: usize, event: Event<Read<K>>) -> Change<K> {
        let mut change = Change {
            changed: Vec::new(),
            gone: Vec::new(),
            malformed: Vec::new(),
        };
        let Some(watch) = self.watches.get_mut(index) else {
            return change;
        };
        match event {
            Event::Init => watch.listing.clear(),
            Event::InitApply(Ok(object)) => {
                watch.listing.insert(key(&object), object);
            }
            Event::InitApply(Err(malformed)) => change.malformed.push(*malformed),
            Event::InitDone if self.whole => self.relisted(index, &mut change),
            Event::InitDone => {
                watch.listed = true;
                if self.watches.iter().all(|w| w.listed) {
                    self.first_list(&mut change);
                }
            }
            // Until all have listed, a change of one that has goes into its list.
            Event::Apply(Ok(object)) if !self.whole => {
                watch.listing.insert(key(&object), object);
            }
            Event::Apply(Err(malformed)) if !self.whole => {
                watch.listing.remove(&malformed.key());
                change.malformed.push(*malformed);
            }
            Event::Delete(object) if !self.whole => {
                watch
                    .listing
                    .remove(&object.as_ref().map_or_else(|m| m.key(), key));
            }
            Event::Apply(Ok(object)) => self.apply(object, &mut change),
            Event::Apply(Err(malformed)) => {
                self.remove(&malformed.key(), &mut change);
                change.malformed.push(*malformed);
            }
            Event::Delete(object) => {
                self.remove(&object.as_ref().map_or_else(|m| m.key(), key), &mut change);
            }
        }
        change
    }

    fn first_list(&mut self, change: &mut Change<K>) {
        self.writer.apply_watcher_event(&Event::Init);
        for object in self
            .watches
            .iter_mut()
            .flat_map(|w| std::mem::take(&mut w.listing).into_values())
        {
            change.changed.push(ObjectRef::from_obj(&object));
            self.writer.apply_watcher_event(&Event::InitApply(object));
        }
        self.writer.apply_watcher_event(&Event::InitDone);
        self.whole = true;
    }

    /// A watch has listed again: what differs from the cache is applied or removed, within the watch's namespace.
    fn relisted(&mut self, index: usize, change: &mut Change<K>) {
        let Some(watch) = self.watches.get_mut(index) else {
            return;
        };
        let (listing, place) = (std::mem::take(&mut watch.listing), watch.place.clone());
        let own = |key: &Key| place.is_none() || key.0 == place;
        let state = self.store.state();
        let gone = state
            .iter()
            .map(|object| key(&**object))
            .filter(|key| own(key) && !listing.contains_key(key));
        for key in gone.collect::<Vec<_>>() {
            self.remove(&key, change);
        }
        for object in listing.into_values() {
            self.apply(object, change);
        }
    }

    fn apply(&mut self, object: K, change: &mut Change<K>) {
        let known = self.store.get(&ObjectRef::from_obj(&object));
        if self.any_change || known.is_none_or(|known| concerns_us(&*known, &object)) {
            change.changed.push(ObjectRef::from_obj(&object));
        }
        self.writer.apply_watcher_event(&Event::Apply(object));
    }

    fn remove(&mut self, key: &Key, change: &mut Change<K>) {
        let mut reference = ObjectRef::<K>::new(&key.1);
        reference.namespace.clone_from(&key.0);
        if let Some(known) = self.store.get(&reference) {
            change.gone.push(uid(&*known));
            self.writer.apply_watcher_event(&Event::Delete((*known).clone()));
        }
    }
}

/// Whether something changed that a pass decides on: anything but the status. Kinds without a generation always count.
fn concerns_us<K: Resource>(known: &K, now: &K) -> bool {
    let (known, now) = (known.meta(), now.meta());
    now.generation.is_none()
        || known.generation != now.generation
        || known.uid != now.uid
        || known.deletion_timestamp != now.deletion_timestamp
        || known.finalizers != now.finalizers
        || known.labels != now.labels
        || known.annotations != now.annotations
}

fn key<K: Resource>(object: &K) -> Key {
    (object.meta().namespace.clone(), object.name_any())
}

#[cfg(test)]
mod tests;
