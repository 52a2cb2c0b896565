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

/// Returns the failure of a missing permission for data of the system, with advice. `participle` completes "FILE can't be
/// …": `read`, `written to`.
pub(crate) fn denied(path: &Path, participle: &str) -> Failure {
    let problem = format!("{} can't be {participle}: permission denied", path.display());
    Failure::new(match describe_permissions(path, PathUse::Data) {
        Some(advice) => format!("{problem}; {advice}"),
        None => problem,
    })
}

/// Returns the failure of a file that can't be read or written: an error of the file system, with advice if it is a
/// missing permission. `problem` names the file.
pub(crate) fn file_failure(problem: &str, path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::because(problem, error);
    let is_denied = error.kind() == ErrorKind::PermissionDenied;
    match describe_permissions(path, PathUse::File).filter(|_| is_denied) {
        Some(advice) => Failure::new(format!("{failure}; {advice}")),
        None => failure,
    }
}

/// The use that a process makes of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathUse {
    /// The data of the system, or of a backup. Their folders are created where they are missing, and have nothing else.
    Data,
    /// A file that an option names, in a folder that must exist.
    File,
}

/// Names the owner and the mode of a file or folder that this user can't use, or of the folder that hides it or in which
/// it would be created, and says what to do. `None` if neither can be found out.
///
/// An operator may follow the advice without a second thought, and as root. So no command of the advice takes a file or
/// folder from a user other than root, changes more than this system's own data, or replaces a file.
pub(crate) fn describe_permissions(path: &Path, path_use: PathUse) -> Option<String> {
    let (found, metadata, place) = find_place(&std::path::absolute(path).ok()?, path_use)?;
    let owner = Owner { id: metadata.uid(), name: user_name(metadata.uid()) };
    let user = Owner { id: geteuid().as_raw(), name: user_name(geteuid().as_raw()) };
    Some(permission_advice(&found, metadata.mode() & 0o7777, &owner, &user, &place))
}

/// A user.
struct Owner {
    id: u32,
    name: String,
}

/// The kind of the file or folder whose permissions are described.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// The file that the user can't use.
    File,
    /// The folder of data that the user can't use.
    DataFolder,
    /// A folder that may have files of others: the user may not enter it, or may not create a file in it. Or a symbolic
    /// link, which may lead to them.
    Folder,
    /// The folder in which this folder for data is missing, and the user may not create it.
    ParentOfMissing(PathBuf),
}

/// Finds the file or folder whose permissions prevent the use of an absolute path: the path itself, or the innermost
/// parent folder that is visible to the user.
fn find_place(path: &Path, path_use: PathUse) -> Option<(PathBuf, fs::Metadata, Place)> {
    let mut missing = None;
    // A file or folder that the user may not see is not missing.
    let mut is_hidden = false;
    for found in path.ancestors() {
        match fs::metadata(found) {
            Ok(metadata) => {
                let is_own_folder =
                    path_use == PathUse::Data && metadata.is_dir() && path.parent() == Some(found);
                let place = match (missing, path_use) {
                    _ if is_hidden && !is_own_folder => Place::Folder,
                    (None, _) if found.is_symlink() => Place::Folder,
                    (None, _) if !metadata.is_dir() => Place::File,
                    (None, PathUse::Data) => Place::DataFolder,
                    (Some(missing), PathUse::Data) => Place::ParentOfMissing(missing),
                    (_, PathUse::File) => Place::Folder,
                };
                return Some((found.to_owned(), metadata, place));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => missing = Some(found.to_owned()),
            Err(_) => is_hidden = true,
        }
    }
    None
}

/// Folders of the system, which are not to be given to the user of a service.
const SYSTEM_FOLDERS: [&str; 12] =
    ["/", "/etc", "/home", "/mnt", "/opt", "/root", "/run", "/srv", "/usr", "/var", "/var/lib", "/var/log"];

fn permission_advice(found: &Path, mode: u32, owner: &Owner, user: &Owner, place: &Place) -> String {
    let (shown, word) = (found.display(), shell_word(found));
    let (Owner { name: user_name, .. }, Owner { name: owner_name, .. }) = (user, owner);
    if owner.id == user.id {
        return format!(
            "{shown} has the mode {mode:04o}, and the process runs as its owner, {user_name}: `chmod u+rwX {word}` \
             gives the owner access"
        );
    }
    let choose = format!("choose a folder that {user_name} may use");
    let is_system_folder = SYSTEM_FOLDERS.iter().any(|folder| found == Path::new(folder));
    // On the mount point of a disk that is not mounted, a server would begin another log.
    let advice = match place {
        Place::ParentOfMissing(path) => format!(
            "if its disk is mounted, `sudo install -d -o {user_name} -m 0700 {}` makes the folder for {user_name}",
            shell_word(path)
        ),
        // Never advise to run as root.
        _ if owner.id != 0 => {
            format!("run it as {owner_name}, for example with `sudo -u {owner_name} chat-api …`, or {choose}")
        }
        Place::File => format!("`sudo chown {user_name}: {word}` gives it to {user_name}"),
        Place::DataFolder if !is_system_folder => format!(
            "if its disk is mounted and it has only data of this system, `sudo chown -R {user_name}: {word}` gives it to \
             {user_name}; if not, {choose}"
        ),
        Place::DataFolder | Place::Folder => choose,
    };
    format!(
        "{shown} belongs to the user {owner_name}, with the mode {mode:04o}, and this process runs as {user_name}: {advice}"
    )
}

/// Returns a path as one word of a shell.
fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.chars().all(|char| char.is_alphanumeric() || "/._-+@:,=".contains(char)) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
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

    const ROOT: (u32, &str) = (0, "root");

    fn advice(found: &str, owner: (u32, &str), place: &Place) -> String {
        let user = |(id, name): (u32, &str)| Owner { id, name: name.to_owned() };
        permission_advice(Path::new(found), 0o755, &user(owner), &user((999, "chat")), place)
    }

    #[test]
    fn nobody_is_advised_to_run_as_root() {
        let file = advice("/srv/chat/events.db-wal", ROOT, &Place::File);
        let expected = "/srv/chat/events.db-wal belongs to the user root, with the mode 0755, and this process runs as \
                        chat: `sudo chown chat: /srv/chat/events.db-wal` gives it to chat";
        assert_eq!(file, expected);
        let missing = advice("/var/lib", ROOT, &Place::ParentOfMissing("/var/lib/chat".into()));
        assert!(
            missing.ends_with("`sudo install -d -o chat -m 0700 /var/lib/chat` makes the folder for chat"),
            "{missing}"
        );
        let folder = advice("/srv/chat", ROOT, &Place::DataFolder);
        assert!(folder.contains(": if its disk is mounted and it has only data of this system, `sudo chown"));
        for advice in [file, missing, folder] {
            assert!(!advice.contains("run it as") && !advice.contains("sudo -u root"), "{advice}");
        }
    }

    #[test]
    fn only_folders_of_the_data_are_given_away_as_a_whole() {
        for (folder, place) in [("/etc/ssl/private", Place::Folder), ("/root", Place::DataFolder)] {
            let advice = advice(folder, ROOT, &place);
            assert!(advice.ends_with("runs as chat: choose a folder that chat may use"), "{advice}");
        }
        let folder = advice("/srv/chat", ROOT, &Place::DataFolder);
        assert!(folder.contains("`sudo chown -R chat: /srv/chat` gives it to chat"), "{folder}");
    }

    #[test]
    fn nothing_is_taken_from_a_user_other_than_root() {
        for place in [Place::File, Place::DataFolder, Place::Folder] {
            let advice = advice("/home/alice/chat", (998, "alice"), &place);
            let expected = ": run it as alice, for example with `sudo -u alice chat-api …`, or choose a folder that chat \
                            may use";
            assert!(advice.ends_with(expected), "{advice}");
        }
        let own = advice("/srv/chat", (999, "chat"), &Place::DataFolder);
        assert!(own.contains("`chmod u+rwX /srv/chat`"), "{own}");
    }

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(shell_word(Path::new("/srv/chat-1/events.db")), "/srv/chat-1/events.db");
        assert_eq!(shell_word(Path::new("/srv/chat data/a'b")), r"'/srv/chat data/a'\''b'");
        let spaced = advice("/srv/chat data", ROOT, &Place::DataFolder);
        assert!(spaced.contains("`sudo chown -R chat: '/srv/chat data'`"), "{spaced}");
    }

    #[test]
    fn a_missing_file_is_not_taken_for_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let (folder, file) = (folder.path(), folder.path().join("operators"));
        let place = |path: &Path, path_use| {
            let (found, _, place) = find_place(path, path_use).expect("a place");
            (found, place)
        };
        assert_eq!(place(&file, PathUse::File), (folder.to_owned(), Place::Folder));
        assert_eq!(place(folder, PathUse::File), (folder.to_owned(), Place::Folder));
        assert_eq!(place(folder, PathUse::Data), (folder.to_owned(), Place::DataFolder));
        let data = folder.join("data");
        let missing = Place::ParentOfMissing(data.clone());
        assert_eq!(place(&data.join("events.db"), PathUse::Data), (folder.to_owned(), missing));
        fs::write(&file, "").expect("a file");
        for path_use in [PathUse::File, PathUse::Data] {
            assert_eq!(place(&file, path_use), (file.clone(), Place::File));
        }
        let link = folder.join("events.db");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        assert_eq!(place(&link, PathUse::Data), (link, Place::Folder));
        // A path below a file is not missing, and can't be created.
        assert_eq!(place(&file.join("a"), PathUse::Data), (file.clone(), Place::Folder));
    }
}
