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

/// Returns the failure of a missing permission. The message names the owner of the file or folder that this user can't
/// use. `participle` completes "FILE can't be …": `read`, `written to`.
pub(crate) fn denied(path: &Path, participle: &str) -> Failure {
    let advice = advise_to_run_as_owner(path).unwrap_or_else(|| {
        "run the process as the owner of its data, or change the owner or the permissions".to_owned()
    });
    Failure::new(format!("{} can't be {participle}: permission denied; {advice}", path.display()))
}

/// Names the owner of a file that this user can't use, or of the folder that hides it, and advises to run the process
/// as that owner. `None` if the owner can't be found out, or is this user.
pub(crate) fn advise_to_run_as_owner(path: &Path) -> Option<String> {
    let (path, metadata) =
        path.ancestors().find_map(|path| Some((path, fs::metadata(or_working_directory(path)).ok()?)))?;
    if metadata.uid() == geteuid().as_raw() {
        return None;
    }
    let owner = user_name(metadata.uid());
    Some(format!(
        "{} belongs to the user {owner}: run it as {owner}, for example with `sudo -u {owner} chat-api …`",
        or_working_directory(path).display()
    ))
}

fn or_working_directory(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
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
            match metadata(&path) {
                Ok(Some(metadata)) => return Ok(Some(Self { path, metadata })),
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    return Err(denied(&path, "opened"));
                }
                Err(error) => {
                    return Err(Failure::because(format!("{} can't be opened", path.display()), &error));
                }
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

fn metadata(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}
