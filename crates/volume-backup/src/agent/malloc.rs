//! The bound on memory holds only if what was freed goes back to the system.
//!
//! glibc keeps a heap for each thread and never gives back what lies below something that is in use; and it learns from each large buffer
//! that is freed to take the next one from such a heap. Buffers of readers come and go on many threads: measured on 100,000 files, 64 MiB of
//! them became 166 MiB resident, and with these settings 86. Pages that are mapped anew cost about 7 % of the processor's time.
//!
//! The settings are read when a program starts, so the agent starts itself once more. (`mallopt` would need unsafe code.)

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// What glibc reads: `info libc`, "Memory Allocation Tunables".
const VARIABLE: &str = "GLIBC_TUNABLES";

/// Two heaps; what has 128 KiB or more is mapped by itself; at most 1 MiB is kept at the end of a heap.
const SETTINGS: &str =
    "glibc.malloc.arena_max=2:glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=1048576";

/// Starts this program again with the settings, unless it has them, or somebody chose others. Returns only if there is nothing to do or it
/// cannot be done; then why, to be told.
pub(super) fn settle() -> Option<std::io::Error> {
    let tunables = with_settings(std::env::var_os(VARIABLE).as_deref())?;
    let mut arguments = std::env::args_os();
    let mut command = match std::env::current_exe() {
        Ok(program) => Command::new(program),
        Err(error) => return Some(error),
    };
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    Some(command.args(arguments).env(VARIABLE, tunables).exec())
}

/// The value for the variable; nothing if the allocator is set already.
fn with_settings(now: Option<&OsStr>) -> Option<String> {
    let now = now.unwrap_or_default().to_str()?;
    if now.contains("glibc.malloc.") {
        return None;
    }
    let separator = if now.is_empty() { "" } else { ":" };
    Some(format!("{now}{separator}{SETTINGS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_added_once_and_never_against_others() {
        let first = with_settings(None).unwrap();
        assert_eq!(first, SETTINGS);
        assert_eq!(with_settings(Some(OsStr::new(&first))), None);
        let kept = with_settings(Some(OsStr::new("glibc.rtld.nns=2"))).unwrap();
        assert_eq!(kept, format!("glibc.rtld.nns=2:{SETTINGS}"));
        assert_eq!(with_settings(Some(OsStr::new("glibc.malloc.arena_max=1"))), None);
    }
}
