//! Access to the admin routes: the admin token, and the file of operators, which is read again every two seconds.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chat_web::admin_auth::{AdminAccess, Operators};
use chat_web::operators::{MAX_FILE_BYTES, OperatorList};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::data_owner::file_failure;
use crate::failure::Failure;
use crate::operator::user_at_host;
use crate::serve_options::ServeOptions;

/// The time between two reads of the file. For so long, an operator who was removed from it can still send requests.
const READ_INTERVAL: Duration = Duration::from_secs(2);

/// The access to admin routes, with the file of operators, which the process does not follow yet.
pub(crate) struct OperatorAccess {
    access: AdminAccess,
    file: Option<OperatorsFile>,
}

/// A file of operators, as it was read last.
struct OperatorsFile {
    path: PathBuf,
    text: String,
    list_sender: watch::Sender<OperatorList>,
}

impl OperatorAccess {
    /// Reads the file of operators, if there is one.
    pub(crate) fn load(options: &ServeOptions) -> Result<Self, Failure> {
        let Some(path) = &options.operators else {
            let access = match &options.admin_token {
                Some(token) => AdminAccess::with_token(token.clone()),
                None => AdminAccess::Open(user_at_host().into()),
            };
            return Ok(Self { access, file: None });
        };
        let (text, operators) = read(path)?;
        let (list_sender, listed) = watch::channel(operators);
        let access = AdminAccess::Operators(Operators { admin_token: options.admin_token.clone(), listed });
        Ok(Self { access, file: Some(OperatorsFile { path: path.clone(), text, list_sender }) })
    }

    /// Starts to follow the file, and returns the access.
    pub(crate) fn follow_file(self) -> AdminAccess {
        if let Some(file) = self.file {
            tokio::spawn(file.follow());
        }
        self.access
    }
}

impl OperatorsFile {
    /// Reads the file periodically. While it can't be read, or has an error, the operators stay as they were.
    async fn follow(mut self) {
        let mut last_reported = None;
        loop {
            sleep(READ_INTERVAL).await;
            let path = self.path.clone();
            let Ok(result) = tokio::task::spawn_blocking(move || read(&path)).await else { return };
            match result {
                Ok((text, _)) if text == self.text => last_reported = None,
                Ok((text, operators)) => {
                    tracing::info!(
                        operators = operators.entries().len(),
                        "the file of operators has changed"
                    );
                    self.text = text;
                    self.list_sender.send_replace(operators);
                    last_reported = None;
                }
                Err(failure) => {
                    let failure = failure.to_string();
                    if last_reported.as_ref() != Some(&failure) {
                        tracing::error!("{failure}; the operators stay as they were");
                        last_reported = Some(failure);
                    }
                }
            }
        }
    }
}

/// Reads a file of operators. Returns its text and the operators.
pub(crate) fn read(path: &Path) -> Result<(String, OperatorList), Failure> {
    let failure = |reason: &str| Failure::new(format!("the file of operators {}: {reason}", path.display()));
    let mut text = String::new();
    let max_bytes = MAX_FILE_BYTES as u64;
    File::open(path).and_then(|file| file.take(max_bytes + 1).read_to_string(&mut text)).map_err(
        |error| {
            file_failure(&format!("the file of operators {} can't be read", path.display()), path, &error)
        },
    )?;
    if text.len() > MAX_FILE_BYTES {
        return Err(failure(&format!("it is larger than {MAX_FILE_BYTES} bytes")));
    }
    let list = OperatorList::parse(&text).map_err(|error| failure(&error.to_string()))?;
    Ok((text, list))
}
