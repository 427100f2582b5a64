//! The dashboard's files, compiled in: the page works without any network but the way to this port.

use super::answer::{HTML, JS};

const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// What the page may do: run its own scripts, ask its own port, and nothing else. uPlot sets styles from its script,
/// which needs no exception; no markup of the page has any.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// The type and the content of a file of the page.
pub(super) fn file(path: &str) -> Option<(&'static str, &'static str)> {
    Some(match path {
        "/" => (HTML, include_str!("page/index.html")),
        "/page.css" => (CSS, include_str!("page/page.css")),
        "/page.js" => (JS, include_str!("page/page.js")),
        "/charts.js" => (JS, include_str!("page/charts.js")),
        "/dom.js" => (JS, include_str!("page/dom.js")),
        "/flip.js" => (JS, include_str!("page/flip.js")),
        "/format.js" => (JS, include_str!("page/format.js")),
        "/route.js" => (JS, include_str!("page/route.js")),
        "/stream.js" => (JS, include_str!("page/stream.js")),
        "/table.js" => (JS, include_str!("page/table.js")),
        "/verdict.js" => (JS, include_str!("page/verdict.js")),
        "/icon.svg" => (SVG, include_str!("page/icon.svg")),
        "/uplot.js" => (JS, include_str!("page/uplot/uPlot.iife.min.js")),
        "/uplot.css" => (CSS, include_str!("page/uplot/uPlot.min.css")),
        _ => return None,
    })
}
