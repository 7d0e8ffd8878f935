//! Medians and percentiles.

/// The median of a few figures; 0 of none.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

/// The value below which `share` of the figures lie; sorts them.
pub(crate) fn percentile(figures: &mut [u32], share: f64) -> u32 {
    figures.sort_unstable();
    let place = (figures.len() as f64 * share) as usize;
    figures.get(place.min(figures.len().saturating_sub(1))).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([]), 0.0);
        assert_eq!(percentile(&mut (0..1000).rev().collect::<Vec<_>>(), 0.99), 990);
        assert_eq!(percentile(&mut [], 0.99), 0);
    }
}
