//! Compression of contents.

/// The number that says how data is compressed, as kopia writes it before the data and into the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeaderId(pub u32);

impl HeaderId {
    /// Not compressed.
    pub const NONE: Self = Self(0);
    /// zstd, kopia's default level.
    pub const ZSTD: Self = Self(0x1100);
    /// zstd, the fastest of kopia's levels; what metadata is written with.
    pub const ZSTD_FASTEST: Self = Self(0x1101);
}
