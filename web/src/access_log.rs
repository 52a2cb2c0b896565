//! The access log: one line for each answered request.

use std::net::IpAddr;
use std::time::Duration;

use tracing::{debug, info};

use crate::error_code::ErrorCode;
use crate::log_throttle::LogThrottle;

/// Bounds the rate of lines about error responses, because clients can cause any number of them.
static ERROR_LOG_THROTTLE: LogThrottle = LogThrottle::new(100);

/// The answered requests that are logged at level info. The others are logged at level debug.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Those that were answered with status 400 or above, up to 100 a second.
    #[default]
    Errors,
    /// All.
    All,
    /// None.
    Off,
}

/// An answered request.
#[derive(Debug)]
pub(crate) struct AnsweredRequest<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) client: Option<IpAddr>,
    pub(crate) method: &'static str,
    /// The route, never the path: the path contains the app's token.
    pub(crate) route: &'a str,
    pub(crate) status: u16,
    /// The code of the problem in the response.
    pub(crate) code: Option<ErrorCode>,
    pub(crate) elapsed: Duration,
}

impl AccessLog {
    /// Logs a request.
    pub(crate) fn record(self, request: &AnsweredRequest<'_>) {
        let AnsweredRequest { request_id, client, method, route, status, code, elapsed } = *request;
        let (client, code) = (client.map(tracing::field::display), code.map(ErrorCode::as_str));
        let ms = (elapsed.as_secs_f64() * 1_000_000.0).round() / 1_000.0;
        // `None` if the line is not for level info. Otherwise the number of lines that the throttle has suppressed
        // since it last admitted one.
        let suppressed = match self {
            Self::All => Some(0),
            Self::Errors if status >= 400 => ERROR_LOG_THROTTLE.admit(),
            Self::Errors | Self::Off => None,
        };
        if let Some(suppressed) = suppressed {
            let suppressed = Some(suppressed).filter(|lines| *lines > 0);
            info!(request_id, client, method, route, status, code, ms, suppressed, "answered a request");
        } else {
            debug!(request_id, client, method, route, status, code, ms, "answered a request");
        }
    }
}
