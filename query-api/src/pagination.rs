//! Pages of lists: limits and the parameters that select a page.

use chat_web::Problem;
use chat_web::extract::malformed_parameter;

/// Query parameters that select which part of a list a page shows. A link to another page replaces them.
pub(crate) const PAGE_SELECTORS: &[&str] = &["after", "around", "before", "cursor"];

/// The default and the largest number of items on a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageLimits {
    pub(crate) default: usize,
    pub(crate) max: usize,
}

impl PageLimits {
    /// Limits of lists.
    pub(crate) const LIST: Self = Self { default: 50, max: 100 };
    /// Limits of search results.
    pub(crate) const SEARCH: Self = Self { default: 20, max: 100 };
    /// Limits of a message's versions.
    pub(crate) const HISTORY: Self = Self { default: 100, max: 100 };

    /// Parses the parameter `limit`.
    pub(crate) fn parse(self, limit: Option<&str>) -> Result<usize, Problem> {
        let Some(limit) = limit else { return Ok(self.default) };
        self.validate(limit.parse().ok())
    }

    /// Checks a `limit` that was parsed; `None` means that it is not a number.
    pub(crate) fn validate(self, limit: Option<u64>) -> Result<usize, Problem> {
        limit
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| (1..=self.max).contains(limit))
            .ok_or_else(|| malformed_parameter("limit", &format!("a number from 1 to {}", self.max)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_limits_in_range() {
        assert_eq!(PageLimits::LIST.parse(None).unwrap(), 50);
        assert_eq!(PageLimits::LIST.parse(Some("1")).unwrap(), 1);
        assert_eq!(PageLimits::LIST.parse(Some("100")).unwrap(), 100);
        for wrong in ["", "0", "101", "-1", "ten", "99999999999999999999"] {
            let problem = PageLimits::LIST.parse(Some(wrong)).unwrap_err();
            assert_eq!(problem.detail(), "`limit` must be a number from 1 to 100", "{wrong}");
        }
    }
}
