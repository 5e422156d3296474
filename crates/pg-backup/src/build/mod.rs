//! Constructors of the objects that the controller creates; pure.

pub mod job;
