//! Tier 3: the real kopia judges what we write, we read what it writes, and both write to one repository.
//!
//! Everything goes through the two command lines, so what is tested is what people and Pods run. `HOLDFAST_JUDGE_KILLS` says how often a
//! backup is killed (10 unless told otherwise; 200 before a release), and `HOLDFAST_JUDGE_FULL=1` asks for the sizes and numbers that
//! take minutes: a file of 20 GiB, 5,000 snapshots.

mod attributes;
mod cache;
mod changed;
mod damage;
mod devices;
mod faults;
mod fixture;
mod kills;
mod ours;
mod theirs;
mod together;
mod trees;
