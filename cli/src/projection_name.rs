//! Names of projections on the command line.

use chat_domain::projection::ProjectionName;
use clap::ValueEnum;

/// Name of a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProjectionNameArg {
    /// Apps, chats and messages as rows
    #[value(alias = "read_model")]
    ReadModel,
    /// The full-text index
    #[value(aliases = ["search_index", "search"])]
    SearchIndex,
}

impl From<ProjectionNameArg> for ProjectionName {
    fn from(name: ProjectionNameArg) -> Self {
        match name {
            ProjectionNameArg::ReadModel => Self::ReadModel,
            ProjectionNameArg::SearchIndex => Self::SearchIndex,
        }
    }
}
