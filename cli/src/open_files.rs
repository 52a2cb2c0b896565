//! The limit of open files, which bounds connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files for everything but connections: engines, the search index, logs.
const RESERVED_FILES: usize = 512;

/// Raises the limit of open files to the most that the process may set, and returns it.
pub(crate) fn raise_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files can't be raised");
        }
    }
    // `None` means that there is no limit.
    getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// Returns how many connections the limit of open files leaves room for.
pub(crate) fn max_connections(open_file_limit: usize) -> usize {
    open_file_limit.saturating_sub(RESERVED_FILES.min(open_file_limit / 2)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_engines() {
        assert_eq!(max_connections(20_000), 19_488);
        assert_eq!(max_connections(1_024), 512);
        assert_eq!(max_connections(256), 128);
        assert_eq!(max_connections(usize::MAX), usize::MAX - 512);
    }

    #[test]
    fn the_limit_of_open_files_is_raised_to_the_most_allowed() {
        let raised = raise_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(
            limit.current.map(|files| usize::try_from(files).unwrap()),
            Some(raised).filter(|files| *files != usize::MAX)
        );
    }
}
