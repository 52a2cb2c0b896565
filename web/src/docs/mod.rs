//! Documentation pages: the OpenAPI reference, a page to try the API, a page per error code, and the index of error
//! codes. The assets of all these pages are in the binary.

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

/// The HTML page to try the API: a chat that shows new messages as they arrive.
pub(crate) const TRY_PAGE: &str = include_str!("try.html");

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
        "try.css" => ("text/css; charset=utf-8", Bytes::from_static(include_bytes!("try.css"))),
        "try.js" => ("text/javascript; charset=utf-8", Bytes::from_static(include_bytes!("try.js"))),
        "swagger-ui.css" => ("text/css; charset=utf-8", SWAGGER_UI_STYLES.clone()?),
        "swagger-ui-bundle.js" => ("text/javascript; charset=utf-8", SWAGGER_UI_SCRIPT.clone()?),
        _ => return None,
    };
    Some(Asset { content_type: HeaderValue::from_static(content_type), body })
}

/// Returns an unmodified file of the Swagger UI distribution. The file is compressed in the binary, so this takes some
/// milliseconds.
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
    render_page(code.title(), code.page(), Some(code))
}

/// Renders the index of all error codes as HTML: in the order of their statuses, each with its default detail.
pub(crate) fn error_index() -> String {
    let mut codes = ErrorCode::ALL.to_vec();
    codes.sort_by_key(|code| code.status());
    let mut markdown =
        "# Error codes\n\nEvery error has the media type `application/problem+json` (RFC 9457). Branch \
                        on its `code`. `detail` is a sentence for people.\n"
            .to_owned();
    let mut status = None;
    for code in codes {
        // Writing to a String can't fail.
        if status.replace(code.status()) != Some(code.status()) {
            let _ = writeln!(markdown, "\n## {} {}\n", code.status().as_u16(), code.status_name());
        }
        let _ = writeln!(markdown, "- [`{code}`](/docs/errors/{code}): {}", code.default_detail());
    }
    render_page("Error codes", &markdown, None)
}

/// Renders a page: Markdown, and links to the pages of all codes. `current` is the code that the page describes.
fn render_page(title: &str, markdown: &str, current: Option<ErrorCode>) -> String {
    let mut content = String::new();
    html::push_html(&mut content, Parser::new_ext(markdown, Options::empty()));
    let mut code_links = String::new();
    for listed in ErrorCode::ALL {
        let attribute = if current == Some(*listed) { " aria-current=\"page\"" } else { "" };
        // Writing to a String can't fail.
        let _ = writeln!(code_links, "<li><a href=\"/docs/errors/{listed}\"{attribute}>{listed}</a></li>");
    }
    include_str!("error_page.html")
        .replace("{{title}}", title)
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
    fn the_index_links_to_every_code_in_the_order_of_statuses() {
        let page = error_index();
        for code in ErrorCode::ALL {
            assert!(
                page.contains(&format!("<a href=\"/docs/errors/{code}\"><code>{code}</code></a>")),
                "{code}"
            );
        }
        let headings: Vec<&str> =
            page.split("<h2>").skip(1).map(|rest| rest.split("</h2>").next().unwrap()).collect();
        assert_eq!(headings.first(), Some(&"400 Bad Request"));
        // The last heading is "All codes", above the links to all codes.
        assert!(headings[..headings.len() - 1].is_sorted(), "{headings:?}");
        assert_eq!(headings.iter().filter(|heading| **heading == "404 Not Found").count(), 1);
        assert!(headings.contains(&"413 Content Too Large"), "{headings:?}");
    }

    #[test]
    fn pages_load_nothing_from_other_servers() {
        for page in
            [REFERENCE_PAGE.to_owned(), TRY_PAGE.to_owned(), error_index(), error_page(ErrorCode::Internal)]
        {
            for attribute in ["src=\"", "href=\""] {
                for target in page.split(attribute).skip(1) {
                    assert!(target.starts_with('/') && !target.starts_with("//"), "{target:.60}");
                }
            }
        }
    }

    #[test]
    fn the_assets_of_the_reference_and_of_the_try_page_exist() {
        let pages = [REFERENCE_PAGE, TRY_PAGE];
        for target in pages.iter().flat_map(|page| page.split("/docs/assets/").skip(1)) {
            let (name, _) = target.split_once('"').unwrap();
            let body = asset(name).unwrap_or_else(|| panic!("{name}")).body;
            assert!(!body.is_empty() && std::str::from_utf8(&body).is_ok(), "{name} is empty or not text");
        }
        assert!(asset("index.html").is_none());
    }
}
