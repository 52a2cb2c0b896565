//! The user that commands run as which create files among the data: its owner, so that the running system can use them.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use chat_files::durable_fs::parent_dir;
use rustix::process::geteuid;

use super::common_args::{user_at_host, user_name};
use crate::engines::StorageLocations;
use crate::failure::Failure;

/// Makes sure that this process runs as the owner of the data. If root runs it, the process is replaced by one of the owner
/// with the same arguments. Fails if it is run by a third user: the running system would have no permission to read what
/// the command creates.
pub(super) fn run_as_data_owner(locations: &StorageLocations) -> Result<(), Failure> {
    let Some((path, owner)) = find_owner(locations)? else { return Ok(()) };
    let user = geteuid();
    if owner.uid() == user.as_raw() {
        return Ok(());
    }
    let name = user_name(owner.uid());
    if !user.is_root() {
        return Err(Failure::new(format!(
            "{} belongs to the user {name}, who would have no permission to read what this command creates; run it as \
             {name}, for example with `sudo -u {name} chat-api …`",
            path.display()
        )));
    }
    // The link is followed without a search of the folders, which may be closed to the user.
    let mut as_owner = Command::new("/proc/self/exe");
    as_owner.args(env::args_os().skip(1)).uid(owner.uid()).gid(owner.gid());
    if let Some(program) = env::args_os().next() {
        as_owner.arg0(program);
    }
    if env::var_os("CHAT_OPERATOR").is_none() {
        // The log records who ran the command.
        as_owner.env("CHAT_OPERATOR", user_at_host());
    }
    let error = as_owner.exec();
    Err(Failure::because(
        format!(
            "{} belongs to the user {name}, and the command can't be run as that user; run it with `sudo -u {name} \
             chat-api …`",
            path.display()
        ),
        &error,
    ))
}

/// Finds who owns the data: the first of its files, or the folder where there are none yet. `None` if nothing is on this
/// machine.
fn find_owner(locations: &StorageLocations) -> Result<Option<(PathBuf, fs::Metadata)>, Failure> {
    let paths = locations.paths();
    let folders: Vec<PathBuf> = paths.iter().map(|path| parent_dir(path)).collect();
    for path in paths.into_iter().chain(folders) {
        match metadata(&path) {
            Ok(Some(found)) => return Ok(Some((path, found))),
            Ok(None) => {}
            Err(error) => {
                return Err(Failure::because(format!("{} can't be looked at", path.display()), &error));
            }
        }
    }
    Ok(None)
}

fn metadata(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
