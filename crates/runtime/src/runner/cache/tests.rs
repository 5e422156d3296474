use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::{
    ResourceExt,
    runtime::{reflector::store::Writer, watcher::Event},
};

use super::{Cache, Change};
use crate::runner::watch::Malformed;

fn object(namespace: &str, name: &str, generation: i64) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.namespace = Some(namespace.to_owned());
    object.metadata.name = Some(name.to_owned());
    object.metadata.uid = Some(format!("uid-{name}"));
    object.metadata.generation = Some(generation);
    object
}

fn malformed(namespace: &str, name: &str) -> Box<Malformed> {
    let reference = ObjectReference {
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        ..ObjectReference::default()
    };
    Box::new(Malformed {
        reference,
        error: "missing field".to_owned(),
    })
}

fn cache(places: &[&str], any_change: bool) -> Cache<ConfigMap> {
    let places = if places.is_empty() {
        vec![None]
    } else {
        places.iter().map(|p| Some((*p).to_owned())).collect()
    };
    Cache::new(Writer::new(()), places, any_change)
}

impl Cache<ConfigMap> {
    fn list(&mut self, watch: usize, objects: &[ConfigMap]) -> Vec<String> {
        let mut changed = names(&self.take(watch, Event::Init));
        for object in objects {
            changed.extend(names(&self.take(watch, Event::InitApply(Ok(object.clone())))));
        }
        changed.extend(names(&self.take(watch, Event::InitDone)));
        changed.sort();
        changed
    }

    fn held(&self) -> Vec<String> {
        let mut held: Vec<_> = self.store.state().iter().map(|o| o.name_any()).collect();
        held.sort();
        held
    }
}

fn names(change: &Change<ConfigMap>) -> Vec<String> {
    change
        .changed
        .iter()
        .map(|reference| reference.name.clone())
        .collect()
}

#[test]
fn nothing_is_reconciled_before_each_watch_has_listed() {
    let mut cache = cache(&["a", "b"], false);
    assert!(
        cache
            .list(0, &[object("a", "one", 1), object("a", "two", 1)])
            .is_empty()
    );
    // What changes meanwhile in a namespace that has listed is not lost.
    assert!(names(&cache.take(0, Event::Apply(Ok(object("a", "three", 1))))).is_empty());
    assert!(names(&cache.take(0, Event::Delete(Ok(object("a", "two", 1))))).is_empty());
    assert_eq!(cache.list(1, &[object("b", "four", 1)]), ["four", "one", "three"]);
    assert_eq!(cache.held(), ["four", "one", "three"]);
}

#[test]
fn listing_again_touches_only_what_differs_in_its_own_namespace() {
    let mut cache = cache(&["a", "b"], false);
    cache.list(0, &[object("a", "one", 1), object("a", "two", 1)]);
    cache.list(1, &[object("b", "four", 1)]);
    assert_eq!(
        cache.list(0, &[object("a", "one", 1), object("a", "three", 1)]),
        ["three"]
    );
    assert_eq!(
        cache.held(),
        ["four", "one", "three"],
        "two went while the watch was broken; b is not a's"
    );
    assert_eq!(cache.list(1, &[]), Vec::<String>::new());
    assert_eq!(cache.held(), ["one", "three"]);
}

#[test]
fn a_status_write_wakes_nobody_unless_asked_for() {
    let mut quiet = cache(&[], false);
    quiet.list(0, &[object("a", "one", 1)]);
    assert!(names(&quiet.take(0, Event::Apply(Ok(object("a", "one", 1))))).is_empty());
    assert_eq!(
        names(&quiet.take(0, Event::Apply(Ok(object("a", "one", 2))))),
        ["one"]
    );
    let mut annotated = object("a", "one", 2);
    annotated
        .annotations_mut()
        .insert("backup.middleware.alauda.io/storage".into(), "s3".into());
    assert_eq!(
        names(&quiet.take(0, Event::Apply(Ok(annotated.clone())))),
        ["one"]
    );
    annotated.finalizers_mut().push("holdfast.dev/cleanup".into());
    assert_eq!(
        names(&quiet.take(0, Event::Apply(Ok(annotated.clone())))),
        ["one"]
    );
    let mut recreated = annotated.clone();
    recreated.metadata.uid = Some("other".into());
    assert_eq!(names(&quiet.take(0, Event::Apply(Ok(recreated)))), ["one"]);

    let mut eager = cache(&[], true);
    eager.list(0, &[object("a", "one", 1)]);
    assert_eq!(
        names(&eager.take(0, Event::Apply(Ok(object("a", "one", 1))))),
        ["one"]
    );
}

#[test]
fn a_kind_without_generation_always_counts() {
    let mut cache = cache(&[], false);
    let mut bare = object("a", "one", 1);
    bare.metadata.generation = None;
    cache.list(0, std::slice::from_ref(&bare));
    assert_eq!(names(&cache.take(0, Event::Apply(Ok(bare)))), ["one"]);
}

#[test]
fn an_object_that_becomes_malformed_leaves_the_cache_and_the_others_stay() {
    let mut cache = cache(&[], false);
    cache.list(0, &[object("a", "one", 1), object("a", "two", 1)]);
    let change = cache.take(0, Event::Apply(Err(malformed("a", "one"))));
    assert_eq!(
        (change.malformed.len(), change.gone),
        (1, vec!["uid-one".to_owned()])
    );
    assert_eq!(cache.held(), ["two"]);
    // Malformed in a list: reported, and not held.
    cache.take(0, Event::Init);
    assert_eq!(
        cache
            .take(0, Event::InitApply(Err(malformed("a", "two"))))
            .malformed
            .len(),
        1
    );
    cache.take(0, Event::InitApply(Ok(object("a", "one", 2))));
    assert_eq!(
        names(&cache.take(0, Event::InitDone)),
        ["one"],
        "repaired, so reconciled"
    );
    assert_eq!(cache.held(), ["one"]);
}

#[test]
fn what_goes_is_reported_gone_once() {
    let mut cache = cache(&[], false);
    cache.list(0, &[object("a", "one", 1)]);
    assert_eq!(
        cache.take(0, Event::Delete(Ok(object("a", "one", 1)))).gone,
        ["uid-one"]
    );
    assert!(
        cache
            .take(0, Event::Delete(Ok(object("a", "one", 1))))
            .gone
            .is_empty()
    );
    assert!(
        cache
            .take(0, Event::Delete(Err(malformed("a", "never seen"))))
            .gone
            .is_empty()
    );
}
