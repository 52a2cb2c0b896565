//! Tests of commands and processes that root or a third user runs on the data of a service user. The service must be
//! able to use all files afterwards.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::api::{create_app, create_chat, create_message, message_path};
use crate::harness::deadline::eventually;
use crate::harness::deployment::folder;
use crate::harness::process::{Process, ProcessOptions, program};

/// The service's user, without privileges.
const SERVICE_USER: u32 = 65_534;

/// The name of [`SERVICE_USER`].
const SERVICE_USER_NAME: &str = "nobody";

/// Another user.
const THIRD_USER: u32 = 65_533;

/// The output of a command.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A process that the service user runs on a folder of its own. Chat 1 of its app has one message.
struct Service {
    process: Process,
    token: String,
    folder: TempDir,
}

/// Whether this test can start processes as other users. Says so if it can't.
#[expect(clippy::print_stderr, reason = "says what was not tested")]
fn can_change_users() -> bool {
    let mut version = program();
    version.arg("--version").uid(SERVICE_USER).gid(SERVICE_USER).stdout(Stdio::null());
    let can = version.status().is_ok_and(|status| status.success());
    if !can {
        eprintln!("NOT RUN: only root can start the program as other users, who must have access to it");
    }
    can
}

impl Service {
    async fn start() -> Self {
        let folder = folder();
        chown(folder.path(), Some(SERVICE_USER), Some(SERVICE_USER)).expect("an owner");
        let process = ProcessOptions::new("serve", folder.path()).with_user(SERVICE_USER).start().await;
        let token = create_app(&process.client(), "an app").await;
        let chat = create_chat(&process.client(), &token).await;
        create_message(&process.client(), &token, chat, "one").await;
        Self { process, token, folder }
    }

    /// Runs a command on the data, as a user.
    fn run(&self, user: u32, arguments: &[&str]) -> Outcome {
        let mut command = program();
        command.args(arguments).arg("--data-dir").arg(self.folder.path()).current_dir("/");
        let output = command.uid(user).gid(user).output().expect("the program runs");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Asserts that the service goes on: a new message is projected, and can be read by the number that it must get.
    async fn assert_goes_on(&self, expected_number: u64) {
        let client = self.process.client();
        let created = create_message(&client, &self.token, 1, "another one").await;
        client.get(message_path(&self.token, 1, expected_number)).after(&created).send().await.expect(200);
        self.process.wait_until_ready().await;
    }

    fn assert_owns_all_files(&self) {
        let others: Vec<PathBuf> = files(self.folder.path())
            .into_iter()
            .filter(|path| path.metadata().is_ok_and(|found| found.uid() != SERVICE_USER))
            .collect();
        assert_eq!(others, Vec::<PathBuf>::new(), "files that belong to another user");
    }
}

/// A folder and all files and folders in it.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            found.extend(files(&entry.expect("an entry").path()));
        }
    }
    found
}

const REBUILD: [&str; 6] = ["projections", "rebuild", "--all", "--execute", "--reason", "a test"];

#[tokio::test(flavor = "multi_thread")]
async fn the_service_goes_on_after_a_rebuild_by_root() {
    if !can_change_users() {
        return;
    }
    let service = Service::start().await;
    let rebuilt = service.run(0, &REBUILD);
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:?}");
    service.assert_goes_on(2).await;
    let listed = service.run(0, &["projections", "list"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    service.assert_owns_all_files();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_the_service_has_no_permission_to_take_over_is_a_finding() {
    if !can_change_users() {
        return;
    }
    let service = Service::start().await;
    // The rebuild waits for the takeover only if it sees that a projector runs.
    eventually("the projector has published that it is live", async || {
        let listed = service.run(0, &["projections", "list", "-o", "json"]);
        let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
        (listed["data"]["generations"][0]["state"] == "live").then_some(())
    })
    .await;
    // A command of root runs as the owner of the log. Here root owns the log, so the service can't use the files of the
    // rebuild. Everybody may write the log, so the service can go on.
    let log = service.folder.path().join("events.db");
    chown(&log, Some(0), Some(0)).expect("an owner");
    fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).expect("a mode");
    let rebuilt =
        service.run(0, &["projections", "rebuild", "read-model", "--execute", "--reason", "a test"]);
    assert_eq!(rebuilt.code, Some(1), "{rebuilt:?}");
    assert!(rebuilt.stderr.contains("permission denied"), "{rebuilt:?}");
    assert!(rebuilt.stdout.contains("readers see read_model 2"), "{rebuilt:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_root_made_is_not_restored_by_the_service_without_advice() {
    if !can_change_users() {
        return;
    }
    let (service, backups) = (Service::start().await, folder());
    fs::set_permissions(backups.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let backup = backups.path().join("backup").display().to_string();
    let made = service.run(0, &["backup", "--out", &backup]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let advice = format!("`sudo chown -R {SERVICE_USER_NAME}: {backup}` gives it to {SERVICE_USER_NAME}");
    for arguments in [&["restore", "--from", &*backup][..], &["audit", "verify", "--backup", &*backup]] {
        let refused = service.run(SERVICE_USER, arguments);
        assert!(refused.code == Some(2) && refused.stderr.contains(&advice), "{refused:?}");
    }
    let log = format!("sqlite://{backup}/events.db");
    for command in ["list", "verify"] {
        let refused = service.run(SERVICE_USER, &["audit", command, "--event-store-url", &log]);
        assert!(refused.code == Some(2) && refused.stderr.contains(&advice), "{refused:?}");
    }

    // The service may look for files in the folder, whose names it may not list.
    fs::set_permissions(&backup, fs::Permissions::from_mode(0o711)).expect("a mode");
    let verify = ["audit", "verify", "--backup", &*backup];
    for file in ["manifest.json", "events.db"] {
        let path = format!("{backup}/{file}");
        let advice = format!("`sudo chown {SERVICE_USER_NAME}: {path}` gives it to {SERVICE_USER_NAME}");
        let arguments = match file {
            "manifest.json" => &verify[..],
            _ => &["audit", "list", "--event-store-url", &log],
        };
        let refused = service.run(SERVICE_USER, arguments);
        assert!(refused.code == Some(2) && refused.stderr.contains(&advice), "{refused:?}");
        chown(path, Some(SERVICE_USER), Some(SERVICE_USER)).expect("an owner");
    }
    let verified = service.run(SERVICE_USER, &verify);
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_user_is_refused_with_the_name_of_the_owner() {
    if !can_change_users() {
        return;
    }
    let service = Service::start().await;
    let path = service.folder.path().display().to_string();
    let owner = format!(
        "{path} belongs to the user {SERVICE_USER_NAME}, with the mode 0700, and this process runs as \
         uid-{THIRD_USER}: run it as {SERVICE_USER_NAME}, for example with `sudo -u {SERVICE_USER_NAME}"
    );
    for arguments in [&REBUILD[..], &["audit", "list"], &["dead-letters", "list"], &["events", "accept-loss"]]
    {
        let refused = service.run(THIRD_USER, arguments);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("permission denied"), "{refused:?}");
        assert!(refused.stderr.contains(&owner), "{refused:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
    }
    // Now everybody may open the folder, but only the service may open its files.
    fs::set_permissions(service.folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let refused = service.run(THIRD_USER, &["audit", "list"]);
    let owner = format!("events.db belongs to the user {SERVICE_USER_NAME}, with the mode 0600, and");
    assert!(refused.code == Some(2) && refused.stderr.contains(&owner), "{refused:?}");

    // Now everybody may also create files in the folder.
    fs::set_permissions(service.folder.path(), fs::Permissions::from_mode(0o777)).expect("a mode");
    let refused = service.run(THIRD_USER, &REBUILD);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("permission") && refused.stderr.contains("sudo -u"), "{refused:?}");
    service.assert_owns_all_files();
    service.assert_goes_on(2).await;
}

#[test]
fn the_advice_for_a_path_in_a_folder_of_root_is_only_to_choose_another_folder() {
    // The advice must not be to `chown` the folder of root, nor to use `install -d` where a file is expected.
    if !can_change_users() {
        return;
    }
    let (folder, closed) = (folder(), folder());
    for (folder, mode) in [(&folder, 0o755), (&closed, 0o700)] {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let (key, operators) = (folder.path().join("audit.key"), closed.path().join("operators"));
    for (arguments, path) in
        [(["audit", "keygen", "--out"], &key), (["operators", "list", "--operators"], &operators)]
    {
        let mut command = program();
        command.args(arguments).arg(path).current_dir("/").uid(SERVICE_USER).gid(SERVICE_USER);
        let output = command.output().expect("the program runs");
        let stderr = String::from_utf8(output.stderr).expect("text");
        let advice =
            format!("runs as {SERVICE_USER_NAME}: choose a folder that {SERVICE_USER_NAME} may use\n");
        assert!(output.status.code() == Some(2) && stderr.ends_with(&advice), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_root_starts_on_the_data_of_a_service_runs_as_the_service() {
    if !can_change_users() {
        return;
    }
    let Service { process, token, folder } = Service::start().await;
    process.shut_down().await;
    let process = ProcessOptions::new("serve", folder.path()).start().await;
    assert!(
        process.stderr().starts_with("chat-api: runs as the user nobody, who owns"),
        "{}",
        process.stderr()
    );
    let name = fs::read_to_string(format!("/proc/{}/comm", process.id())).expect("its name");
    assert_eq!(name, "chat-api\n");
    create_message(&process.client(), &token, 1, "while root serves").await;
    process.shut_down().await;
    let process = ProcessOptions::new("serve", folder.path()).with_user(SERVICE_USER).start().await;
    let service = Service { process, token, folder };
    service.assert_owns_all_files();
    service.assert_goes_on(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_root_accepts_leaves_the_data_to_the_service() {
    if !can_change_users() {
        return;
    }
    let Service { process, token, folder } = Service::start().await;
    process.shut_down().await;
    for suffix in ["", "-wal", "-shm"] {
        // The WAL files may not exist.
        let _ = fs::remove_file(folder.path().join(format!("events.db{suffix}")));
    }
    let log = format!("sqlite://{}", folder.path().join("events.db").display());
    let accept = ["events", "accept-loss", "--execute", "--reason", "a test", "--event-store-url", &log];
    let accepted = program().args(accept).arg("--data-dir").arg(folder.path()).output();
    let accepted = accepted.expect("the program runs");
    assert!(accepted.status.success(), "{accepted:?}");
    let process = ProcessOptions::new("serve", folder.path()).with_user(SERVICE_USER).start().await;
    create_app(&process.client(), "after the loss").await;
    Service { process, token, folder }.assert_owns_all_files();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_and_a_restore_by_root_leave_the_data_to_the_service() {
    if !can_change_users() {
        return;
    }
    let service = Service::start().await;
    let backups = folder();
    let backup = backups.path().join("backup");
    let path = backup.to_str().expect("a path");
    let backed_up = service.run(0, &["backup", "--out", path]);
    assert_eq!(backed_up.code, Some(0), "{backed_up:?}");
    assert_eq!(backed_up.stderr, "");
    service.assert_owns_all_files();

    let Service { process, folder: data, .. } = service;
    process.shut_down().await;
    for file in files(data.path()).into_iter().skip(1).filter(|file| file.is_file()) {
        fs::remove_file(file).expect("a removal");
    }
    let restore = ["restore", "--from", path, "--execute", "--reason", "a test", "--data-dir"];
    let restored = program().args(restore).arg(data.path()).output().expect("the program runs");
    assert!(restored.status.success(), "{restored:?}");
    let process = ProcessOptions::new("serve", data.path()).with_user(SERVICE_USER).start().await;
    create_app(&process.client(), "after the restore").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_root_made_is_not_read_by_the_service_without_advice() {
    if !can_change_users() {
        return;
    }
    let service = Service::start().await;
    let checkpoint = service.folder.path().join("checkpoint");
    fs::write(&checkpoint, "").expect("a checkpoint");
    fs::set_permissions(&checkpoint, fs::Permissions::from_mode(0o600)).expect("a mode");
    let path = checkpoint.to_str().expect("a path");
    let advice = format!("`sudo chown {SERVICE_USER_NAME}: {path}` gives it to {SERVICE_USER_NAME}");
    for arguments in [
        &["audit", "verify", "--checkpoint", path, "--unsigned"][..],
        &["audit", "prove", "3", "--checkpoint", path, "--out", "/dev/null"],
    ] {
        let refused = service.run(SERVICE_USER, arguments);
        assert!(refused.code == Some(2) && refused.stderr.contains(&advice), "{refused:?}");
    }
}
