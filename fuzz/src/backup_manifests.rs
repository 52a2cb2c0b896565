//! Manifests of backups. A case is the content of one, for a backup of the sample log.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use chat_operations::backup::{self, AcceptedCopy, Manifest, RestorePlan};

use crate::{block_on, new_folder, sample_log};

struct Fixture {
    backup: PathBuf,
    manifest: Manifest,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let folder = new_folder();
    let (log_file, backup) = (folder.join("events.db"), folder.join("backup"));
    let manifest = block_on(async {
        let (log, _) = sample_log::create(&log_file).await;
        backup::create(&*log, &log_file, &backup, "chat-api 0.1.0", &mut |_| {}).await
    });
    Fixture { backup, manifest: manifest.expect("a backup") }
});

/// A manifest can be written and read back, and a backup can be restored only with a manifest that describes it. `LOG`,
/// `ROOT`, `SHA256` and `BYTES` in a case stand for the values of the backup.
pub fn check(case: &[u8]) {
    let Fixture { backup, manifest } = &*FIXTURE;
    let file = manifest.log_file().expect("the copy of the log");
    let case = String::from_utf8_lossy(case)
        .replace("LOG", &manifest.log.0.to_string())
        .replace("ROOT", &manifest.root.to_string())
        .replace("SHA256", &file.sha256.to_string())
        .replace("BYTES", &file.bytes.to_string());
    fs::write(backup.join("manifest.json"), case).expect("the manifest");
    let Ok(read) = Manifest::read(backup) else { return };
    assert!(read.version <= Manifest::VERSION);
    let text = serde_json::to_vec_pretty(&read).expect("JSON");
    assert_eq!(serde_json::from_slice::<Manifest>(&text).expect("a manifest"), read);
    let restored_log = backup.join("restored.db");
    let progress = &mut |_| {};
    let plan = RestorePlan::new(backup, &restored_log, AcceptedCopy::SameFile, Vec::new(), progress);
    if block_on(plan).is_ok() {
        assert_eq!(read.log, manifest.log);
        assert_eq!(read.log_root(), manifest.log_root());
        assert_eq!(read.log_file().expect("the copy of the log"), file);
    }
}
