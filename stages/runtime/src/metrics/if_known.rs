//! A gauge that stands on the page only while its value is known.

use prometheus::GaugeVec;

/// A number that goes up and down, and is not shown while it is not known: zero would be a statement.
#[derive(Debug, Clone)]
pub struct GaugeIfKnown(GaugeVec);

impl GaugeIfKnown {
    /// Of a metric without labels, which has one series or none.
    pub(super) fn new(values: GaugeVec) -> Self {
        Self(values)
    }

    /// Shows the value, or that it is not known.
    pub fn set(&self, value: Option<f64>) {
        match value {
            Some(value) => self.0.with_label_values::<&str>(&[]).set(value),
            None => self.0.reset(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Page;

    #[test]
    fn what_is_not_known_is_not_shown_and_zero_is() {
        let page = Page::default();
        let free = page.gauge_if_known("free_bytes", "Bytes that are free.");
        let shown = || page.render().lines().find(|line| line.starts_with("nice_knovvu_free")).map(str::to_owned);
        assert_eq!(shown(), None);
        free.set(Some(0.0));
        assert_eq!(shown().as_deref(), Some("nice_knovvu_free_bytes 0"));
        free.set(None);
        assert_eq!(shown(), None);
    }
}
