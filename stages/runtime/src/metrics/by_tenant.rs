//! Metrics whose values belong to a tenant each, with a bound on how many tenants a page names.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{MetricVec, MetricVecBuilder};

/// The label of a value that belongs to one tenant.
pub(super) const TENANT: &str = "tenant";

/// Tenants that a process names on its page. The values of further ones stand together under [`OTHER`].
pub const MOST_NAMED: usize = 200;

/// Stands for every tenant beyond the bound.
pub const OTHER: &str = "other";

/// The tenants that a page names: those it met first.
#[derive(Debug, Clone, Default)]
pub(super) struct NamedTenants {
    met: Arc<Mutex<BTreeSet<String>>>,
}

impl NamedTenants {
    /// The value of the label for this tenant.
    fn label<'a>(&self, tenant: &'a str) -> &'a str {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        if met.contains(tenant) {
            return tenant;
        }
        if met.len() >= MOST_NAMED {
            return OTHER;
        }
        met.insert(tenant.to_owned());
        tenant
    }
}

/// A metric with the label `tenant` before its own labels.
#[derive(Clone)]
pub struct ByTenant<V> {
    values: V,
    named: NamedTenants,
    own: Option<String>,
}

impl<T: MetricVecBuilder> ByTenant<MetricVec<T>> {
    pub(super) fn new(values: MetricVec<T>, named: NamedTenants) -> Self {
        Self { values, named, own: None }
    }

    /// The value of a tenant and of these labels; they stand in the order in which the metric was declared.
    pub fn of(&self, tenant: &str, labels: &[&str]) -> T::M {
        let labels: Vec<_> = [self.named.label(tenant)].iter().chain(labels).copied().collect();
        self.values.with_label_values(&labels)
    }

    /// The same metric in the hands of what works for one tenant.
    pub fn belonging_to(&self, tenant: &str) -> Self {
        Self { own: Some(tenant.to_owned()), ..self.clone() }
    }

    /// The value of the tenant that it belongs to; none where it belongs to nobody.
    pub fn own(&self, labels: &[&str]) -> Option<T::M> {
        self.own.as_deref().map(|own| self.of(own, labels))
    }
}

impl<V> std::fmt::Debug for ByTenant<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByTenant").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Page;
    use super::*;

    #[test]
    fn tenants_beyond_the_bound_stand_together() {
        let page = Page::default();
        let calls = page.counters_by_tenant("calls_total", "Calls.", &["end"]);
        let gauge = page.gauges_by_tenant("waiting", "Those who wait.", &[]);
        for number in 0..MOST_NAMED + 50 {
            calls.of(&format!("t{number:03}"), &["ready"]).inc();
        }
        // Met again, one that is named stays so, and another metric of the page names the same tenants.
        calls.of("t000", &["ready"]).inc();
        gauge.of("t000", &[]).set(7);
        gauge.of("t249", &[]).set(8);

        let shown = page.render();
        let series = shown.lines().filter(|line| line.starts_with("nice_knovvu_calls_total{")).count();
        assert_eq!(series, MOST_NAMED + 1);
        for line in [
            r#"nice_knovvu_calls_total{end="ready",tenant="t000"} 2"#,
            r#"nice_knovvu_calls_total{end="ready",tenant="t199"} 1"#,
            r#"nice_knovvu_calls_total{end="ready",tenant="other"} 50"#,
            r#"nice_knovvu_waiting{tenant="t000"} 7"#,
            r#"nice_knovvu_waiting{tenant="other"} 8"#,
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
        }
    }
}
