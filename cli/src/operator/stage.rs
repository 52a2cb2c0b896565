//! What commands work on.

use std::sync::Arc;

use chat_domain::operator_action::ProjectionName;
use chat_operations::operator_actions::Operator;
use chat_ports::event_store::EventStore;
use chat_ports::read_model::ReadModel;
use chat_projector::generations::Generations;

use super::{Common, Deed};
use crate::engines::{Places, ReadModelLocation, open_existing_event_store};
use crate::failure::Failure;

/// The places that the options name, and the log, open.
pub(super) struct Stage {
    pub(super) places: Places,
    pub(super) log: Arc<dyn EventStore>,
}

impl Stage {
    pub(super) async fn open(common: &Common) -> Result<Self, Failure> {
        let places = Places::of_engines(&common.engines)?;
        let log = open_existing_event_store(&places.events).await?;
        Ok(Self { places, log })
    }

    /// The generation of the read model that readers see, and where it is.
    pub(super) async fn read_model(&self) -> Result<(Arc<dyn ReadModel>, ReadModelLocation), Failure> {
        let generations = Generations::load(&*self.log).await;
        let generations =
            generations.map_err(|error| Failure::because("the operators' acts can't be read", &error))?;
        let live = generations.of(ProjectionName::ReadModel).live;
        let place = self.places.projections().read_model(live);
        if let ReadModelLocation::Sqlite(path) = &place
            && !path.exists()
        {
            return Err(Failure::new(format!(
                "there is no read model at {place}; --data-dir or --database-url says where it is"
            )));
        }
        Ok((place.reader(), place))
    }
}

impl Deed {
    /// Who does it.
    pub(super) fn operator(&self) -> Operator {
        Operator {
            name: self.operator.clone().unwrap_or_else(user_and_machine),
            program: concat!("chat-api/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Why; a deed without a reason is refused.
    pub(super) fn reason(&self) -> Result<String, Failure> {
        let reason = self.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty());
        reason.map(str::to_owned).ok_or_else(|| {
            Failure::new("--reason is missing: what is done here is recorded, with who did it and why")
        })
    }
}

fn user_and_machine() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let user = user.filter(|user| !user.is_empty()).or_else(account).unwrap_or_else(|| "unknown".to_owned());
    let machine = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    match machine.trim() {
        "" => user,
        machine => format!("{user}@{machine}"),
    }
}

/// The account that this process runs as: services and containers often set no variable that says it.
#[cfg(target_os = "linux")]
fn account() -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let id = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|account| {
        let mut fields = account.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    Some(name.unwrap_or_else(|| format!("uid-{id}")))
}

#[cfg(not(target_os = "linux"))]
fn account() -> Option<String> {
    None
}
