//! Owner, permissions, extended attributes and times.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::extended::{Place, Values, is_acl, is_users};

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

/// What the kernel did not permit to set, and its answers.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub(super) struct Applied {
    pub(super) denied: Vec<(String, Errno)>,
}

impl AttributePolicy {
    /// Sets the attributes of an open file or directory whose state is `now`.
    fn apply(
        self,
        file: BorrowedFd<'_>,
        now: &Stat,
        wanted: &Attributes,
        extended: Option<&Values>,
    ) -> Result<Applied, Errno> {
        let mut attempts = Attempts::new(self);
        let owner = self.set_owner(&mut attempts, file, now, wanted)?;
        let place = Place::Open(file);
        if let Some(extended) = extended {
            self.begin_extended(&mut attempts, &place, extended)?;
        }
        let mode = permitted_mode(now, wanted, owner.is_right && self.owners);
        // Changing the owner clears set-user-id, so the mode is set once more after that.
        let differs = now.st_mode & 0o7777 != mode || owner.was_other && mode & 0o6000 != 0;
        attempts.run(PERMISSIONS, self.permissions && differs, || {
            rustix::fs::fchmod(file, Mode::from_raw_mode(mode))
        })?;
        if let Some(extended) = extended {
            let is_owned = owner.is_right && (self.owners || is_owner(now, wanted));
            self.end_extended(&mut attempts, &place, extended, is_owned)?;
        }
        attempts.run(TIMES, self.times, || rustix::fs::futimens(file, &wanted.times()))?;
        Ok(attempts.outcome)
    }

    /// Removes what is not wanted, and sets what users may set. That needs the right to write to the file, which the
    /// permissions that come next may take away.
    fn begin_extended(
        self,
        attempts: &mut Attempts,
        place: &Place<'_>,
        wanted: &Values,
    ) -> Result<(), Errno> {
        for name in place.unwanted(wanted)? {
            if self.permissions || !is_acl(&name) {
                attempts.run_for(&name, || place.remove(&name))?;
            }
        }
        for (name, value) in wanted.iter().filter(|(name, _)| is_users(name)) {
            attempts.run_for(name, || place.set(name, value))?;
        }
        Ok(())
    }

    /// Sets everything else: changing the owner takes away the capabilities of a program, and changing the permissions
    /// changes access control lists.
    fn end_extended(
        self,
        attempts: &mut Attempts,
        place: &Place<'_>,
        wanted: &Values,
        is_owned: bool,
    ) -> Result<(), Errno> {
        for (name, value) in wanted.iter().filter(|(name, _)| !is_users(name)) {
            if is_acl(name) && !self.permissions {
                continue;
            }
            attempts.run_for(name, || {
                // Else whoever restores could write to a program that has rights which others gave it.
                if name == b"security.capability" && !is_owned {
                    return Err(Errno::PERM);
                }
                place.set(name, value)
            })?;
        }
        Ok(())
    }

    /// Sets the attributes of a symlink that is opened as `O_PATH`; its permissions mean nothing on Linux.
    pub(super) fn apply_to_link(
        self,
        link: BorrowedFd<'_>,
        now: &Stat,
        wanted: &Attributes,
        extended: Option<&Values>,
    ) -> Result<Applied, Errno> {
        let mut attempts = Attempts::new(self);
        self.set_owner(&mut attempts, link, now, wanted)?;
        if let Some(extended) = extended {
            let place = Place::link(link);
            self.begin_extended(&mut attempts, &place, extended)?;
            self.end_extended(&mut attempts, &place, extended, true)?;
        }
        attempts.run(TIMES, self.times, || {
            rustix::fs::utimensat(link, c"", &wanted.times(), AtFlags::EMPTY_PATH)
        })?;
        Ok(attempts.outcome)
    }

    /// Sets the owner of whatever is open, symlinks included, where it is not right already.
    fn set_owner(
        self,
        attempts: &mut Attempts,
        file: BorrowedFd<'_>,
        now: &Stat,
        wanted: &Attributes,
    ) -> Result<Owner, Errno> {
        // The highest number means "leave as it is" to the kernel, so nobody can own a file by it.
        let differs = |now: u32, wanted: u32| self.owners && now != wanted && wanted != u32::MAX;
        let user = differs(now.st_uid, wanted.user).then(|| Uid::from_raw(wanted.user));
        let group = differs(now.st_gid, wanted.group).then(|| Gid::from_raw(wanted.group));
        let was_other = user.is_some() || group.is_some();
        let is_right = attempts.run(OWNER, was_other, || {
            rustix::fs::chownat(file, c"", user, group, AtFlags::EMPTY_PATH)
        })?;
        Ok(Owner { was_other, is_right })
    }
}

/// What became of an owner.
struct Owner {
    /// There was another, so that something had to be done.
    was_other: bool,
    /// Nothing had to be done, or it was done.
    is_right: bool,
}

/// Whether an entry belongs to whom it should.
fn is_owner(now: &Stat, wanted: &Attributes) -> bool {
    (now.st_uid, now.st_gid) == (wanted.user, wanted.group)
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

/// What calls set, for reports.
const OWNER: &str = "owner";
const PERMISSIONS: &str = "permissions";
const TIMES: &str = "times";

/// Calls that may be forbidden.
struct Attempts {
    ignore: bool,
    outcome: Applied,
}

impl Attempts {
    const fn new(policy: AttributePolicy) -> Self {
        Self {
            ignore: policy.ignore_permission_errors,
            outcome: Applied { denied: Vec::new() },
        }
    }

    /// Makes a call if it is needed; says whether all is as it should be then.
    fn run(
        &mut self,
        what: &str,
        needed: bool,
        call: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<bool, Errno> {
        if !needed {
            return Ok(true);
        }
        match call() {
            Ok(()) => Ok(true),
            Err(error @ (Errno::PERM | Errno::ACCESS)) if self.ignore => {
                self.outcome.denied.push((what.to_owned(), error));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The same for an extended attribute, which a file system may not have.
    fn run_for(&mut self, name: &[u8], call: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
        match call() {
            Ok(()) | Err(Errno::NODATA) => Ok(()),
            Err(error @ (Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP)) if self.ignore => {
                let name = name.escape_ascii().to_string();
                self.outcome.denied.push((name, error));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Sets the attributes of an open file or directory.
pub(super) fn apply(
    policy: AttributePolicy,
    file: impl AsFd,
    wanted: &Attributes,
    extended: Option<&Values>,
) -> Result<Applied, Errno> {
    let file = file.as_fd();
    policy.apply(file, &rustix::fs::fstat(file)?, wanted, extended)
}
