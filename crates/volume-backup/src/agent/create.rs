//! `agent create`.

use std::sync::Arc;

use holdfast_kopia::format::CreateOptions;
use holdfast_kopia::{MemoryLimits, Repository};
use serde::Serialize;

use super::Context;
use super::args::CreateArgs;
use super::connection::Connection;
use super::failure::{DONE, Failure};

#[derive(Serialize)]
struct Summary {
    location: String,
    format_version: u8,
}

pub(super) async fn run(args: &CreateArgs, context: &Context) -> Result<u8, Failure> {
    let connection = Connection::new(&args.repository, &context.environment)?;
    let options = CreateOptions {
        hash: args.block_hash.clone(),
        encryption: args.encryption.clone(),
        splitter: args.object_splitter.clone(),
        ..CreateOptions::default()
    };
    let storage = Arc::clone(&connection.storage);
    let open = connection.options(MemoryLimits::restore());
    let create = Repository::create(storage, &connection.password, &options, open);
    let repository = super::unless_cancelled(&context.cancel, create).await?;
    let summary = Summary {
        location: connection.storage.location(),
        format_version: repository.format().version,
    };
    if context.output.is_json() {
        context.output.line("summary", &summary);
    } else {
        context
            .output
            .print(&format!("created a repository at {}", summary.location));
    }
    Ok(DONE)
}
