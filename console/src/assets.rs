//! The style sheet, script and icon of the pages. Their names contain a hash of their content, so browsers may cache
//! them for a year.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use sha2::{Digest, Sha256};

use crate::page::ConsoleError;

/// The path of the folder of the assets.
const FOLDER: &str = "/console/assets/";

/// The number of bytes of the hash in a name.
const HASH_BYTES: usize = 6;

/// A file that pages load.
struct Asset {
    path: String,
    content_type: &'static str,
    body: &'static [u8],
}

impl Asset {
    fn new(name: &str, extension: &str, content_type: &'static str, body: &'static [u8]) -> Self {
        let hash = BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(body)[..HASH_BYTES]);
        Self { path: format!("{FOLDER}{name}-{hash}.{extension}"), content_type, body }
    }
}

/// All assets.
pub(crate) struct Assets {
    style: Asset,
    script: Asset,
    icon: Asset,
}

/// The assets of this program.
pub(crate) static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    style: Asset::new("console", "css", "text/css; charset=utf-8", include_bytes!("../assets/console.css")),
    script: Asset::new(
        "console",
        "js",
        "text/javascript; charset=utf-8",
        include_bytes!("../assets/console.js"),
    ),
    icon: Asset::new("icon", "svg", "image/svg+xml", include_bytes!("../assets/icon.svg")),
});

impl Assets {
    /// The path of the style sheet.
    pub(crate) fn style(&self) -> &str {
        &self.style.path
    }

    /// The path of the script.
    pub(crate) fn script(&self) -> &str {
        &self.script.path
    }

    /// The path of the icon.
    pub(crate) fn icon(&self) -> &str {
        &self.icon.path
    }

    fn find(&self, name: &str) -> Option<&Asset> {
        let all = [&self.style, &self.script, &self.icon];
        all.into_iter().find(|asset| asset.path.strip_prefix(FOLDER) == Some(name))
    }
}

/// `GET /console/assets/{name}`
pub(crate) async fn serve(Path(name): Path<String>) -> Response {
    match ASSETS.find(&name) {
        Some(asset) => {
            let headers = [
                (CONTENT_TYPE, asset.content_type),
                (CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ];
            (headers, asset.body).into_response()
        }
        None => ConsoleError::not_found("There is no such file. A page that was opened before an upgrade may ask for it: reload the page.")
            .into_response(),
    }
}
