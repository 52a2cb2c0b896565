//! Documentation pages: the OpenAPI reference and a page per error code. All their assets are in the binary.

use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::HeaderValue;
use pulldown_cmark::{Options, Parser, html};
use utoipa_swagger_ui::Config;

use crate::error_code::ErrorCode;

/// The HTML page that loads Swagger UI.
pub(crate) const REFERENCE_PAGE: &str = include_str!("reference.html");

/// The style sheet of Swagger UI.
static SWAGGER_UI_STYLES: LazyLock<Option<Bytes>> = LazyLock::new(|| swagger_ui_file("swagger-ui.css"));

/// The script of Swagger UI.
static SWAGGER_UI_SCRIPT: LazyLock<Option<Bytes>> = LazyLock::new(|| swagger_ui_file("swagger-ui-bundle.js"));

/// A file that the pages load.
pub(crate) struct Asset {
    pub(crate) content_type: HeaderValue,
    pub(crate) body: Bytes,
}

/// Returns the asset of this name.
pub(crate) fn asset(name: &str) -> Option<Asset> {
    let (content_type, body) = match name {
        "pages.css" => ("text/css; charset=utf-8", Bytes::from_static(include_bytes!("pages.css"))),
        "icon.svg" => ("image/svg+xml", Bytes::from_static(include_bytes!("icon.svg"))),
        "reference.js" => {
            ("text/javascript; charset=utf-8", Bytes::from_static(include_bytes!("reference.js")))
        }
        "swagger-ui.css" => ("text/css; charset=utf-8", SWAGGER_UI_STYLES.clone()?),
        "swagger-ui-bundle.js" => ("text/javascript; charset=utf-8", SWAGGER_UI_SCRIPT.clone()?),
        _ => return None,
    };
    Some(Asset { content_type: HeaderValue::from_static(content_type), body })
}

/// Returns an unmodified file of the Swagger UI distribution, which is compressed in the binary. Takes some milliseconds.
fn swagger_ui_file(name: &str) -> Option<Bytes> {
    let file = utoipa_swagger_ui::serve(name, Arc::new(Config::default())).ok()??;
    let decompressed = if file.gzpipped { decompress(&file.bytes).ok()? } else { file.bytes.into_owned() };
    Some(Bytes::from(decompressed))
}

fn decompress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut decompressed = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut decompressed)?;
    Ok(decompressed)
}

/// Renders the page of an error code as HTML.
pub(crate) fn error_page(code: ErrorCode) -> String {
    let mut content = String::new();
    html::push_html(&mut content, Parser::new_ext(code.page(), Options::empty()));
    let mut code_links = String::new();
    for listed in ErrorCode::ALL {
        let current = if *listed == code { " aria-current=\"page\"" } else { "" };
        // Writing to a String can't fail.
        let _ = writeln!(code_links, "<li><a href=\"/docs/errors/{listed}\"{current}>{listed}</a></li>");
    }
    include_str!("error_page.html")
        .replace("{{title}}", code.title())
        .replace("{{content}}", &content)
        .replace("{{codes}}", &code_links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_page_shows_its_text_and_links_to_the_others() {
        let page = error_page(ErrorCode::MessageNotFound);
        assert!(page.contains("<h1>message_not_found</h1>"));
        assert!(page.contains("<a href=\"/docs/errors/message_deleted\">"));
        assert!(page.contains("aria-current=\"page\">message_not_found</a>"));
        assert!(!page.contains("{{"));
    }

    #[test]
    fn pages_load_nothing_from_other_servers() {
        for page in [REFERENCE_PAGE.to_owned(), error_page(ErrorCode::Internal)] {
            for attribute in ["src=\"", "href=\""] {
                for target in page.split(attribute).skip(1) {
                    assert!(target.starts_with('/') && !target.starts_with("//"), "{target:.60}");
                }
            }
        }
    }

    #[test]
    fn every_asset_of_the_reference_exists() {
        for target in REFERENCE_PAGE.split("/docs/assets/").skip(1) {
            let (name, _) = target.split_once('"').unwrap();
            let body = asset(name).unwrap_or_else(|| panic!("{name}")).body;
            assert!(!body.is_empty() && std::str::from_utf8(&body).is_ok(), "{name} is not text");
        }
        assert!(asset("index.html").is_none());
    }
}
