//! The stylesheet, the script and the icon: in the executable, and kept by browsers for as long as they are the same.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

const STYLE: &str = include_str!("assets/page.css");
const SCRIPT: &str = include_str!("assets/page.js");
const ICON: &str = include_str!("assets/icon.svg");

/// Where the stylesheet is.
pub(super) static STYLE_ADDRESS: LazyLock<String> = LazyLock::new(|| address("css", STYLE));

/// Where the script is.
pub(super) static SCRIPT_ADDRESS: LazyLock<String> = LazyLock::new(|| address("js", SCRIPT));

/// Where the icon is.
pub(super) static ICON_ADDRESS: LazyLock<String> = LazyLock::new(|| address("svg", ICON));

/// One of them.
pub(super) async fn serve(Path(name): Path<String>) -> Response {
    let asked = format!("/assets/{name}");
    let (kind, text) = match asked {
        asked if asked == *STYLE_ADDRESS => ("text/css; charset=utf-8", STYLE),
        asked if asked == *SCRIPT_ADDRESS => ("text/javascript; charset=utf-8", SCRIPT),
        asked if asked == *ICON_ADDRESS => ("image/svg+xml", ICON),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

/// An address that changes with the text.
fn address(extension: &str, text: &str) -> String {
    format!("/assets/page-{:?}.{extension}", model::Key::of(&[text]))
}
