//! The user who owns the data. A process that root starts runs as the owner, so that the owner's other processes can
//! use the files that it creates.

use std::env;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use chat_files::durable_fs::parent_dir;
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::geteuid;

use crate::engines::StorageLocations;
use crate::failure::Failure;
use crate::operator::{user_at_host, user_name};
use crate::stderr;

/// Makes sure that an operator command runs as the owner of the data. If root runs the command, replaces this process
/// by a process of the owner with the same arguments. Fails if a third user runs the command: the running system would
/// have no permission to read what the command creates.
pub(crate) fn run_command_as_owner(locations: &StorageLocations) -> Result<(), Failure> {
    let Some(data) = OwnedData::find_owned_by_other_user(locations)? else { return Ok(()) };
    if !geteuid().is_root() {
        let OwnedData { path, .. } = &data;
        let owner = data.owner();
        return Err(Failure::new(format!(
            "{} belongs to the user {owner}, who would have no permission to read what this command creates; run it as \
             {owner}, for example with `sudo -u {owner} chat-api …`",
            path.display()
        )));
    }
    let mut command = data.this_process_as_owner();
    if env::var_os("CHAT_OPERATOR").is_none() {
        // The log records who ran the command.
        command.env("CHAT_OPERATOR", user_at_host());
    }
    Err(data.exec(command))
}

/// Makes sure that a serving process that root starts runs as the owner of the data. Replaces this process as
/// [`run_command_as_owner`] does.
pub(crate) fn run_role_as_owner(locations: &StorageLocations) -> Result<(), Failure> {
    if !geteuid().is_root() {
        // Missing permissions are reported file by file.
        return Ok(());
    }
    let Some(data) = OwnedData::find_owned_by_other_user(locations)? else { return Ok(()) };
    stderr::print(&format!(
        "chat-api: runs as the user {}, who owns {}\n",
        data.owner(),
        data.path.display()
    ));
    Err(data.exec(data.this_process_as_owner()))
}

/// Restores the name of a process that [`run_command_as_owner`] or [`run_role_as_owner`] has started under the name
/// `exe`, so that `ps` and `pgrep` find it as usual.
pub(crate) fn restore_process_name() {
    const NAME: &str = "/proc/self/comm";
    if fs::read(NAME).is_ok_and(|name| name == b"exe\n")
        && let Some(program) = env::args_os().next()
        && let Some(name) = Path::new(&program).file_name()
    {
        // A wrong name does no harm.
        let _ = fs::write(NAME, name.as_encoded_bytes());
    }
}

/// Returns the failure of a missing permission, with advice. `participle` completes "FILE can't be …": `read`, `written
/// to`.
pub(crate) fn denied(path: &Path, participle: &str) -> Failure {
    let problem = format!("{} can't be {participle}: permission denied", path.display());
    Failure::new(match describe_permissions(path) {
        Some(advice) => format!("{problem}; {advice}"),
        None => problem,
    })
}

/// Returns the failure of a file that can't be read or written: an error of the file system, with advice if it is a
/// missing permission. `problem` names the file.
pub(crate) fn file_failure(problem: &str, path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::because(problem, error);
    match describe_permissions(path).filter(|_| error.kind() == ErrorKind::PermissionDenied) {
        Some(advice) => Failure::new(format!("{failure}; {advice}")),
        None => failure,
    }
}

/// Names the owner and the mode of a file or folder that this user can't use, or of the folder that hides it or in which
/// it would be created, and says what to do. `None` if neither can be found out.
pub(crate) fn describe_permissions(path: &Path) -> Option<String> {
    let path = std::path::absolute(path).ok()?;
    let (found, metadata) = path.ancestors().find_map(|found| Some((found, fs::metadata(found).ok()?)))?;
    let may_enter = accessat(CWD, found, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    let place = if found == path {
        Place::Itself
    } else if may_enter {
        // The folder can be searched, so what is below it does not exist.
        let first_missing = path.strip_prefix(found).ok()?.iter().next()?;
        Place::Missing(found.join(first_missing))
    } else {
        Place::Hidden
    };
    let owner = Owner { id: metadata.uid(), name: user_name(metadata.uid()) };
    let user = Owner { id: geteuid().as_raw(), name: user_name(geteuid().as_raw()) };
    Some(permission_advice(found, metadata.mode() & 0o7777, &owner, &user, &place))
}

/// A user.
struct Owner {
    id: u32,
    name: String,
}

/// Where the path is that a user can't use, relative to the file or folder whose permissions are described.
enum Place {
    /// It is this file or folder.
    Itself,
    /// It is somewhere below this folder, which the user may not enter.
    Hidden,
    /// This path below the folder does not exist, and the user may not create it.
    Missing(PathBuf),
}

/// Folders of the system, which are not to be given to the user of a service.
const SYSTEM_FOLDERS: [&str; 12] =
    ["/", "/etc", "/home", "/mnt", "/opt", "/root", "/run", "/srv", "/usr", "/var", "/var/lib", "/var/log"];

fn permission_advice(found: &Path, mode: u32, owner: &Owner, user: &Owner, place: &Place) -> String {
    let shown = found.display();
    let (Owner { name: user_name, .. }, Owner { name: owner_name, .. }) = (user, owner);
    if owner.id == user.id {
        return format!(
            "{shown} has the mode {mode:04o}, and the process runs as its owner, {user_name}: `chmod u+rwX {shown}` \
             gives the owner access"
        );
    }
    let give = if SYSTEM_FOLDERS.iter().any(|folder| found == Path::new(folder)) {
        format!("choose a folder that {user_name} may use")
    } else {
        format!("`sudo chown -R {user_name}: {shown}` gives it to {user_name}")
    };
    let advice = match place {
        Place::Missing(path) => format!(
            "`sudo install -d -o {user_name} -m 0700 {}` makes the folder for {user_name}",
            path.display()
        ),
        // Never advise to run as root.
        Place::Itself | Place::Hidden if owner.id == 0 => give,
        Place::Itself | Place::Hidden => format!(
            "run it as {owner_name}, for example with `sudo -u {owner_name} chat-api …`; if {user_name} is the right \
             user, {give}"
        ),
    };
    format!(
        "{shown} belongs to the user {owner_name}, with the mode {mode:04o}, and this process runs as {user_name}: {advice}"
    )
}

/// A file or folder of the data on this machine. The metadata contain its owner.
struct OwnedData {
    path: PathBuf,
    metadata: fs::Metadata,
}

impl OwnedData {
    /// Finds the data if another user owns it.
    fn find_owned_by_other_user(locations: &StorageLocations) -> Result<Option<Self>, Failure> {
        Ok(Self::find(locations)?.filter(|data| data.metadata.uid() != geteuid().as_raw()))
    }

    /// Finds the first existing file or folder of the data, or the first existing parent folder if no data exists
    /// yet. `None` if no parent folder exists either.
    fn find(locations: &StorageLocations) -> Result<Option<Self>, Failure> {
        let paths = locations.paths();
        let folders: Vec<PathBuf> = paths.iter().map(|path| parent_dir(path)).collect();
        for path in paths.into_iter().chain(folders) {
            if let Some(metadata) = metadata(&path)? {
                return Ok(Some(Self { path, metadata }));
            }
        }
        Ok(None)
    }

    fn owner(&self) -> String {
        user_name(self.metadata.uid())
    }

    fn this_process_as_owner(&self) -> Command {
        // The kernel follows this link without access to the program's folders, which may be closed to the owner.
        let mut command = Command::new("/proc/self/exe");
        command.args(env::args_os().skip(1)).uid(self.metadata.uid()).gid(self.metadata.gid());
        if let Some(program) = env::args_os().next() {
            command.arg0(program);
        }
        command
    }

    /// Replaces this process. Returns only if that fails.
    fn exec(&self, mut command: Command) -> Failure {
        let (owner, path) = (self.owner(), self.path.display());
        let error = command.exec();
        Failure::because(
            format!(
                "{path} belongs to the user {owner}, and the process can't run as that user; start it with `sudo -u {owner} \
                 chat-api …`"
            ),
            &error,
        )
    }
}

/// Whether a file or folder exists. Fails if the user may not see it.
pub(crate) fn exists(path: &Path) -> Result<bool, Failure> {
    Ok(metadata(path)?.is_some())
}

fn metadata(path: &Path) -> Result<Option<fs::Metadata>, Failure> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(denied(path, "opened")),
        Err(error) => Err(Failure::because(format!("{} can't be opened", path.display()), &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(found: &str, owner: (u32, &str), place: &Place) -> String {
        let user = |(id, name): (u32, &str)| Owner { id, name: name.to_owned() };
        permission_advice(Path::new(found), 0o755, &user(owner), &user((999, "chat")), place)
    }

    #[test]
    fn nobody_is_advised_to_run_as_root() {
        let root = (0, "root");
        let given = advice("/srv/chat", root, &Place::Itself);
        let expected = "/srv/chat belongs to the user root, with the mode 0755, and this process runs as chat: \
                        `sudo chown -R chat: /srv/chat` gives it to chat";
        assert_eq!(given, expected);
        let missing = advice("/var/lib", root, &Place::Missing("/var/lib/chat".into()));
        assert!(
            missing.ends_with("`sudo install -d -o chat -m 0700 /var/lib/chat` makes the folder for chat")
        );
        let system = advice("/root", root, &Place::Hidden);
        assert!(system.ends_with(": choose a folder that chat may use"), "{system}");
        for advice in [given, missing, system] {
            assert!(!advice.contains("run it as") && !advice.contains("sudo -u root"), "{advice}");
        }
    }

    #[test]
    fn a_third_user_is_advised_to_run_as_the_owner() {
        let of_service = advice("/srv/chat", (998, "chat-api"), &Place::Hidden);
        assert!(of_service.contains("run it as chat-api, for example with `sudo -u chat-api chat-api …`"));
        assert!(of_service.ends_with("`sudo chown -R chat: /srv/chat` gives it to chat"), "{of_service}");
        let own = advice("/srv/chat", (999, "chat"), &Place::Itself);
        assert!(own.contains("`chmod u+rwX /srv/chat`"), "{own}");
    }
}
