//! The controller of PostgresBackup (`middleware.alauda.io/v1`) and its data-plane agent.
//!
//! A pass goes through the modules in this order: [`observe`] reads, [`plan`] decides, [`act`] writes, [`outcome`] says
//! what the status must say, and [`controller`] drives them. Only `observe`, `act` and `progress` do I/O.

pub mod act;
pub mod agent;
pub mod build;
pub mod cli;
pub mod config;
pub mod controller;
pub mod error;
pub mod member;
pub mod metrics;
pub mod observe;
pub mod outcome;
pub mod plan;
pub mod progress;
pub mod rbac;
pub mod reason;
