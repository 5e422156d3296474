//! The reconcile runner: watches in, passes out.
//!
//! It stands on `kube::runtime::applier` rather than on `Controller`, because each watch must report when its first
//! list is whole (readiness), must survive objects that do not have the form of their kind, and must be counted.
//!
//! One [`Runner`] drives one kind:
//!
//! ```no_run
//! # use std::{sync::Arc, time::Duration};
//! # use holdfast_runtime::{Term, runner::{Next, Runner}, ApiError};
//! # use k8s_openapi::api::{batch::v1::Job, core::v1::ConfigMap};
//! # struct Ctx { client: kube::Client }
//! async fn reconcile(object: Arc<ConfigMap>, ctx: Arc<Ctx>) -> Result<Next, ApiError> {
//!     Ok(Next::After(Duration::from_secs(30)))
//! }
//!
//! async fn run(term: Term) -> Result<(), std::io::Error> {
//!     let ctx = Arc::new(Ctx { client: term.client.clone() });
//!     Runner::new("example", &term).owns::<Job>(&Default::default()).run(reconcile, ctx).await;
//!     Ok(())
//! }
//! ```

mod cache;
mod pass;
mod policy;
mod watch;

pub use policy::{Backoff, Policy};
pub use watch::{Malformed, WatchScope};

use std::{collections::HashMap, convert::Infallible, fmt::Debug, future::Future, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream, stream::BoxStream};
use holdfast_fault::Fault;
use kube::{
    Resource, ResourceExt,
    api::PartialObjectMeta,
    runtime::{
        self,
        controller::ReconcileRequest,
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use serde::de::DeserializeOwned;

use crate::{
    events::Note,
    metrics::{ControllerName, Label},
    readiness::Latch,
    term::Term,
};

/// When a pass that succeeded wants to run again. Waiting is no error, and an error is no waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is left to do until something watched changes.
    AwaitChange,
    /// Come back after this time, or earlier if something watched changes.
    After(Duration),
}

/// How long one pass may take, unless the runner is told otherwise.
pub const PASS_DEADLINE: Duration = Duration::from_mins(2);

type Triggers<K> = BoxStream<'static, Result<ReconcileRequest<K>, Infallible>>;
type OnMalformed = Arc<dyn Fn(&Malformed) + Send + Sync>;

/// Runs passes for one kind, as often as its objects, or those they own, change.
#[must_use = "a runner does nothing until it runs"]
pub struct Runner<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + 'static,
{
    controller: ControllerName,
    term: Term,
    root: watcher::Config,
    root_latches: Vec<Latch>,
    any_change: bool,
    related: Vec<Triggers<K>>,
    writer: Writer<K>,
    deadline: Duration,
    policy: Policy,
    on_malformed: Vec<OnMalformed>,
}

impl<K> Debug for Runner<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + 'static,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("controller", &self.controller)
            .finish_non_exhaustive()
    }
}

impl<K> Runner<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::Scope: WatchScope,
{
    /// A runner for the kind `K`. The process is not ready until its watch, and each one added, has listed once.
    ///
    /// `controller` labels metrics and logs; it is the binary's name, or the kind's where one binary drives several.
    pub fn new(controller: &'static str, term: &Term) -> Self {
        let controller = ControllerName(controller);
        term.standard.announce(controller);
        let latches = watch::latches::<K>(&term.readiness, &term.namespaces);
        Self {
            controller,
            term: term.clone(),
            root: watcher::Config::default(),
            root_latches: latches,
            any_change: false,
            related: Vec::new(),
            writer: Writer::new(()),
            deadline: PASS_DEADLINE,
            policy: Policy::default(),
            on_malformed: Vec::new(),
        }
    }

    /// Restricts the watch of `K` by labels or fields.
    pub fn watching(mut self, config: watcher::Config) -> Self {
        self.root = config;
        self
    }

    /// Runs a pass on each change of an object, also of its status alone. Without this a pass follows a change of spec (generation), labels,
    /// annotations, finalizers or deletion, and the status that the controller itself writes wakes nobody.
    pub fn on_any_change(mut self) -> Self {
        self.any_change = true;
        self
    }

    /// Runs a pass when an object of the kind `C` that the object owns changes or goes. Only metadata is watched.
    pub fn owns<C>(mut self, config: &watcher::Config) -> Self
    where
        C: Resource<DynamicType = ()> + Clone + Debug + Send + 'static,
        C::Scope: WatchScope,
    {
        let stream = watch::metadata::<C>(&self.term, self.controller, config);
        self.related
            .push(runtime::controller::trigger_owners::<K, _>(stream, (), ()).boxed());
        self
    }

    /// Runs a pass for the objects that `mapper` names when an object of the kind `C` changes or goes. Only metadata is watched.
    pub fn watches<C>(
        mut self,
        config: &watcher::Config,
        mapper: impl Fn(&PartialObjectMeta<C>) -> Vec<ObjectRef<K>> + Send + Sync + 'static,
    ) -> Self
    where
        C: Resource<DynamicType = ()> + Clone + Debug + Send + 'static,
        C::Scope: WatchScope,
    {
        let stream = watch::metadata::<C>(&self.term, self.controller, config);
        self.related
            .push(runtime::controller::trigger_with(stream, move |object| mapper(&object)).boxed());
        self
    }

    /// Runs a pass for each object that this stream names.
    pub fn on(mut self, triggers: impl Stream<Item = ObjectRef<K>> + Send + 'static) -> Self {
        self.related
            .push(triggers.map(|object| Ok(object.into())).boxed());
        self
    }

    /// How long one pass may take; [`PASS_DEADLINE`] without this.
    pub fn pass_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How passes are repeated; [`Policy::default`] without this.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Calls `f` for each object seen that does not have the form of its kind, after it was counted, logged and told in an Event.
    pub fn on_malformed(mut self, f: impl Fn(&Malformed) + Send + Sync + 'static) -> Self {
        self.on_malformed.push(Arc::new(f));
        self
    }

    /// The cache of `K`, for gauges at scrape time and for mappers. It is behind the API server, also behind one's own writes.
    pub fn store(&self) -> Store<K> {
        self.writer.as_reader()
    }

    /// Runs until the term's shutdown is requested, then starts nothing new and lets passes in flight end.
    ///
    /// When the future is dropped, passes in flight are aborted at their next await.
    pub async fn run<Ctx, F, Fut, E>(self, reconcile: F, ctx: Arc<Ctx>)
    where
        Ctx: Send + Sync + 'static,
        F: Fn(Arc<K>, Arc<Ctx>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Next, E>> + Send + 'static,
        E: Fault + Send + Sync + 'static,
    {
        let Self {
            controller,
            term,
            root,
            root_latches,
            any_change,
            related,
            writer,
            deadline,
            policy,
            on_malformed,
        } = self;
        let store = writer.as_reader();
        let passes = Arc::new(pass::Passes::new(
            controller,
            term.standard.clone(),
            policy,
            deadline,
        ));

        let events = watch::objects::<K>(&term, controller, &root, root_latches);
        let mut cache = cache::Cache::new(writer, K::Scope::places(&term.namespaces), any_change);
        let (forget, report) = (passes.clone(), reporter(controller, &term, on_malformed));
        let changed = events.flat_map(move |(watch, event)| {
            let change = cache.take(watch, event);
            change.malformed.iter().for_each(&report);
            change.gone.iter().for_each(|uid| forget.forget(uid));
            stream::iter(change.changed.into_iter().map(|object| Ok(object.into())))
        });
        let mut triggers = related;
        triggers.push(changed.boxed());
        let queue = stream::select_all(triggers).take_until(term.shutdown.clone().cancelled_owned());

        term.started();
        let ready = store.clone();
        let driver = runtime::applier(
            move |object: Arc<K>, ctx: Arc<Ctx>| {
                Box::pin(passes.clone().run(object.clone(), reconcile(object, ctx)))
            },
            |_, never: &Infallible, _| match *never {},
            ctx,
            store,
            queue,
            runtime::Config::default().concurrency(term.concurrency.max(1)),
        );
        // An object that went between trigger and pass is no error, and there is no other.
        let all_passes = driver.for_each(|_| std::future::ready(()));
        let never_listed = async {
            term.shutdown.cancelled().await;
            // Before the first list is whole no pass runs, and the applier would wait for the list for ever.
            if tokio::time::timeout(Duration::ZERO, ready.wait_until_ready())
                .await
                .is_err()
            {
                return;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = all_passes => {}
            () = never_listed => {}
        }
        tracing::info!(controller = controller.as_str(), "no pass is running any more");
    }
}

/// Counts, logs and tells of a malformed object, once for each version of it.
fn reporter(
    controller: ControllerName,
    term: &Term,
    callbacks: Vec<OnMalformed>,
) -> impl Fn(&Malformed) + Send + Sync + 'static + use<> {
    let (standard, events) = (term.standard.clone(), term.events.clone());
    move |object| {
        standard.malformed.inc((controller,));
        tracing::warn!(
            controller = controller.as_str(),
            kind = object.reference.kind,
            namespace = object.reference.namespace,
            name = object.reference.name,
            error = object.error,
            "object does not have the form of its kind and is left alone"
        );
        let text = format!(
            "this object does not have the form of its kind and is left alone: {}",
            object.error
        );
        events.publish(&object.reference, Note::warning("Malformed", "Read", text));
        for callback in &callbacks {
            callback(object);
        }
    }
}

/// How often each object failed in a row, by UID.
type Attempts = HashMap<String, u32>;

/// The UID of an object, or its name where there is none, which only tests build.
fn uid<K: Resource>(object: &K) -> String {
    object.uid().unwrap_or_else(|| object.name_any())
}
