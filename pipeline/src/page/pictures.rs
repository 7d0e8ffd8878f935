//! Bars: one drawing for shares of a whole, for times, and for counts over days. No style is inline.

use maud::{Markup, html};

/// A piece of a bar, from 0 to 1000.
pub(super) struct Piece {
    /// Where it begins.
    pub(super) from: f64,
    /// How long it is.
    pub(super) length: f64,
    /// The class of its colour.
    pub(super) colour: &'static str,
}

/// A bar of pieces. What it says stands beside it, so a screen reader passes over it.
pub(super) fn bar(pieces: &[Piece]) -> Markup {
    html! {
        svg.bar viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
            rect.track width="1000" height="10" {}
            @for Piece { from, length, colour } in pieces.iter().filter(|piece| piece.length > 0.0) {
                // Never so thin that it is not seen.
                @let length = length.max(5.0);
                @let from = from.min(1000.0 - length).max(0.0);
                rect class=(colour) x={ (format!("{from:.1}")) } width=(format!("{length:.1}")) height="10" {}
            }
        }
    }
}

/// A bar of counts, one behind the other, out of a whole.
pub(super) fn shares(counts: &[(u64, &'static str)], whole: u64) -> Markup {
    let (mut from, mut pieces) = (0.0, Vec::new());
    for (count, colour) in counts {
        let length = *count as f64 * 1000.0 / whole.max(1) as f64;
        pieces.push(Piece { from, length, colour });
        from += length;
    }
    bar(&pieces)
}

/// Counts over time, the newest at the right.
pub(super) fn spark(counts: &[u64], says: &str) -> Markup {
    let most = counts.iter().copied().max().unwrap_or_default().max(1) as f64;
    html! {
        svg.spark viewBox={ "0 0 " (counts.len() * 10) " 30" } preserveAspectRatio="none" role="img" aria-label=(says) {
            @for (at, count) in counts.iter().enumerate() {
                @let height = if *count == 0 { 1.0 } else { (*count as f64 * 29.0 / most).max(3.0) };
                rect class=(if *count == 0 { "fill-quiet" } else { "fill-bad" }) x=(at * 10 + 1)
                    y=(format!("{:.1}", 30.0 - height)) width="8" height=(format!("{height:.1}")) {}
            }
        }
    }
}

/// The colour of a legend.
pub(super) fn swatch(colour: &str) -> Markup {
    html! { svg viewBox="0 0 10 10" aria-hidden="true" { rect class=(colour) width="10" height="10" {} } }
}
