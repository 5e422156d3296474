//! Owner, permissions and times.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

/// `S_ISUID` and `S_ISGID`: the file runs as its owner, as its group.
const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;

/// What an entry has beside its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permissions as Unix has them, set-user-id, set-group-id and sticky included.
    pub(crate) mode: u32,
    /// User.
    pub(crate) user: u32,
    /// Group.
    pub(crate) group: u32,
    /// Time of the last modification; it becomes the time of the last access as well, as kopia does.
    pub(crate) modified: Timespec,
}

/// Which attributes are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "kopia's options, each for itself")]
pub(crate) struct AttributePolicy {
    pub(crate) owners: bool,
    pub(crate) permissions: bool,
    pub(crate) times: bool,
    /// Go on where the kernel does not permit to set an attribute.
    pub(crate) ignore_permission_errors: bool,
}

/// Whether everything could be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Applied {
    Everything,
    /// The kernel did not permit some of it.
    Partly,
}

impl AttributePolicy {
    /// Sets the attributes of an open file or directory whose state is `now`.
    pub(crate) fn apply(
        self,
        file: BorrowedFd<'_>,
        now: &Stat,
        wanted: &Attributes,
    ) -> Result<Applied, Errno> {
        let mut attempts = Attempts::new(self);
        let (user, group) = self.owner(now, wanted);
        let owned = attempts.run(user.is_some() || group.is_some(), || {
            rustix::fs::fchown(file, user, group)
        })?;
        let mode = permitted_mode(now, wanted, owned && self.owners);
        // Changing the owner clears set-user-id, so the mode is set once more after that.
        let differs =
            now.st_mode & 0o7777 != mode || (user.is_some() || group.is_some()) && mode & 0o6000 != 0;
        attempts.run(self.permissions && differs, || {
            rustix::fs::fchmod(file, Mode::from_raw_mode(mode))
        })?;
        attempts.run(self.times, || rustix::fs::futimens(file, &wanted.times()))?;
        Ok(attempts.outcome)
    }

    /// Sets the attributes of a symlink that is opened as `O_PATH`; its permissions mean nothing on Linux.
    pub(crate) fn apply_to_link(
        self,
        link: BorrowedFd<'_>,
        now: &Stat,
        wanted: &Attributes,
    ) -> Result<Applied, Errno> {
        let mut attempts = Attempts::new(self);
        let (user, group) = self.owner(now, wanted);
        attempts.run(user.is_some() || group.is_some(), || {
            rustix::fs::chownat(link, c"", user, group, AtFlags::EMPTY_PATH)
        })?;
        attempts.run(self.times, || {
            rustix::fs::utimensat(link, c"", &wanted.times(), AtFlags::EMPTY_PATH)
        })?;
        Ok(attempts.outcome)
    }

    /// The owner to be set; none where it is right already.
    fn owner(self, now: &Stat, wanted: &Attributes) -> (Option<Uid>, Option<Gid>) {
        // The highest number means "leave as it is" to the kernel, so nobody can own a file by it.
        let differs = |now: u32, wanted: u32| self.owners && now != wanted && wanted != u32::MAX;
        (
            differs(now.st_uid, wanted.user).then(|| Uid::from_raw(wanted.user)),
            differs(now.st_gid, wanted.group).then(|| Gid::from_raw(wanted.group)),
        )
    }
}

/// The permissions that an entry gets. A program that runs as its owner must not run as somebody else because the owner
/// could not be set. Of a directory the bit means which group new files get, which harms nobody.
fn permitted_mode(now: &Stat, wanted: &Attributes, owner_is_set: bool) -> u32 {
    let mut mode = wanted.mode & 0o7777;
    let is_directory = now.st_mode & 0o170_000 == 0o040_000;
    if !owner_is_set && !is_directory {
        if now.st_uid != wanted.user {
            mode &= !SET_USER_ID;
        }
        if now.st_gid != wanted.group {
            mode &= !SET_GROUP_ID;
        }
    }
    mode
}

impl Attributes {
    fn times(&self) -> Timestamps {
        Timestamps {
            last_access: self.modified,
            last_modification: self.modified,
        }
    }
}

/// Calls that may be forbidden.
struct Attempts {
    ignore: bool,
    outcome: Applied,
}

impl Attempts {
    const fn new(policy: AttributePolicy) -> Self {
        Self {
            ignore: policy.ignore_permission_errors,
            outcome: Applied::Everything,
        }
    }

    /// Makes a call if it is needed; says whether all is as it should be then.
    fn run(&mut self, needed: bool, call: impl FnOnce() -> Result<(), Errno>) -> Result<bool, Errno> {
        if !needed {
            return Ok(true);
        }
        match call() {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::ACCESS) if self.ignore => {
                self.outcome = Applied::Partly;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Sets the attributes of an open file or directory.
pub(super) fn apply(policy: AttributePolicy, file: impl AsFd, wanted: &Attributes) -> Result<Applied, Errno> {
    let file = file.as_fd();
    policy.apply(file, &rustix::fs::fstat(file)?, wanted)
}
