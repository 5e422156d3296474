//! Objects: what contents make up together.

mod contents;
mod id;
mod list;
mod parts;
mod pieces;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod writer;

pub use contents::{ContentSink, ContentSource};
pub use id::ObjectId;
pub use list::{ListOptions, ListWriter, ObjectPart};
pub use parts::{ObjectStream, Part, PartStream, decode_part, object_length, read_range};
pub use pieces::{PieceOptions, PieceWriter};
pub use writer::{ObjectOptions, ObjectWriter};
