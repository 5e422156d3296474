//! What may be a label: values known at compile time.

/// A label whose values form a closed set.
///
/// Implement it for an enum. A value is a `&'static str`, so nothing that was read from an object fits.
///
/// ```
/// use holdfast_runtime::metrics::Label;
///
/// #[derive(Clone, Copy)]
/// enum Codec { Lz4, Zstd }
///
/// impl Label for Codec {
///     const NAME: &'static str = "codec";
///     fn all() -> &'static [Self] { &[Self::Lz4, Self::Zstd] }
///     fn as_str(self) -> &'static str {
///         match self { Self::Lz4 => "lz4", Self::Zstd => "zstd" }
///     }
/// }
/// ```
///
/// The name of an object is no label:
///
/// ```compile_fail
/// let metrics = holdfast_runtime::metrics::Metrics::new();
/// let backups = metrics.counter::<(String,)>("holdfast_backups_total", "Backups.").unwrap();
/// backups.inc(("my-backup".to_owned(),));
/// ```
pub trait Label: Copy + Send + Sync + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values; empty where each binary fixes its own.
    fn all() -> &'static [Self];
    /// The value as it is exported.
    fn as_str(self) -> &'static str;
}

/// Up to three labels, as a tuple; `()` for none.
pub trait LabelSet: Copy + Send + Sync + 'static {
    /// The names, in order.
    fn names() -> Vec<&'static str>;
    /// The values, in the same order.
    fn values(self) -> Vec<&'static str>;
    /// Every combination of values; none when a label does not list its values.
    fn every() -> Vec<Self>;
    /// Names with their possible values, for the documentation.
    fn describe() -> Vec<(&'static str, Vec<&'static str>)>;
}

fn of<L: Label>() -> (&'static str, Vec<&'static str>) {
    (L::NAME, L::all().iter().map(|value| value.as_str()).collect())
}

impl LabelSet for () {
    fn names() -> Vec<&'static str> {
        Vec::new()
    }
    fn values(self) -> Vec<&'static str> {
        Vec::new()
    }
    fn every() -> Vec<Self> {
        vec![()]
    }
    fn describe() -> Vec<(&'static str, Vec<&'static str>)> {
        Vec::new()
    }
}

impl<A: Label> LabelSet for (A,) {
    fn names() -> Vec<&'static str> {
        vec![A::NAME]
    }
    fn values(self) -> Vec<&'static str> {
        vec![self.0.as_str()]
    }
    fn every() -> Vec<Self> {
        A::all().iter().map(|a| (*a,)).collect()
    }
    fn describe() -> Vec<(&'static str, Vec<&'static str>)> {
        vec![of::<A>()]
    }
}

impl<A: Label, B: Label> LabelSet for (A, B) {
    fn names() -> Vec<&'static str> {
        vec![A::NAME, B::NAME]
    }
    fn values(self) -> Vec<&'static str> {
        vec![self.0.as_str(), self.1.as_str()]
    }
    fn every() -> Vec<Self> {
        A::all()
            .iter()
            .flat_map(|a| B::all().iter().map(|b| (*a, *b)))
            .collect()
    }
    fn describe() -> Vec<(&'static str, Vec<&'static str>)> {
        vec![of::<A>(), of::<B>()]
    }
}

impl<A: Label, B: Label, C: Label> LabelSet for (A, B, C) {
    fn names() -> Vec<&'static str> {
        vec![A::NAME, B::NAME, C::NAME]
    }
    fn values(self) -> Vec<&'static str> {
        vec![self.0.as_str(), self.1.as_str(), self.2.as_str()]
    }
    fn every() -> Vec<Self> {
        <(A, B)>::every()
            .into_iter()
            .flat_map(|(a, b)| C::all().iter().map(move |c| (a, b, *c)))
            .collect()
    }
    fn describe() -> Vec<(&'static str, Vec<&'static str>)> {
        vec![of::<A>(), of::<B>(), of::<C>()]
    }
}

/// The name of a controller: the binary's name, or that of one of its kinds. Written in the source, never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ControllerName(pub &'static str);

impl Label for ControllerName {
    const NAME: &'static str = "controller";
    fn all() -> &'static [Self] {
        &[]
    }
    fn as_str(self) -> &'static str {
        self.0
    }
}

/// The version of the binary, as `env!("CARGO_PKG_VERSION")` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version(pub &'static str);

impl Label for Version {
    const NAME: &'static str = "version";
    fn all() -> &'static [Self] {
        &[]
    }
    fn as_str(self) -> &'static str {
        self.0
    }
}
