//! Objects: what contents make up together.

mod id;

pub use id::ObjectId;
