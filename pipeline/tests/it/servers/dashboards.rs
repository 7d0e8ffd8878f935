//! Every panel and every alert shows something while NICE, the calls and the broker are in trouble.

use nice_sim::Faults;

use super::bed::{Role, ServerBed, terminate};
use super::calls::{place, small};
use super::machines::Servers;
use crate::dashboards::{Is, Prometheus, chosen, panels, selectors_of};

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_and_alert_shows_something_under_faults() {
    let mut bed = ServerBed::on(Servers::own().await, small(1601, 0)).await;
    bed.set("FLOW__FRESHNESS_GOAL", "1s");
    bed.set_nice("acme", &[("retention", "30d")]);
    let mut daemon = bed.start(Role::Both, "run", &[]);
    let prometheus = Prometheus::reading(&mut daemon).await;
    place(bed.sim(), 0..20);
    bed.quiet().await;
    assert_eq!(bed.ended(Role::Both, &["reconcile"]).code, Some(0));

    // NICE has had enough, recordings are late or wrong, and links lead astray: a dead letter each.
    let faults = Faults { throttled: 0.3, foreign_media_link: 0.3, recordings_late: 0.5, ..Faults::none() };
    bed.sim().set_faults(faults);
    place(bed.sim(), 20..60);
    prometheus.until(&prometheus.alert("DeadLetters").await, Is::Shown).await;
    prometheus.until(&prometheus.alert("NiceQuotaShared").await, Is::Shown).await;
    // NICE refuses the key.
    bed.sim().set_faults(Faults { keys_refused: 1.0, ..Faults::none() });
    bed.sim().revoke_tokens();
    place(bed.sim(), 60..90);
    prometheus.until(&prometheus.alert("NiceRefusesUs").await, Is::Shown).await;
    prometheus.until(&prometheus.alert("TenantSystemFails").await, Is::Shown).await;
    // The broker is away.
    bed.proxies.rabbitmq().stall(true);
    prometheus.until(&prometheus.alert("OutsideSystemAway").await, Is::Shown).await;

    for (_, expression) in panels() {
        prometheus.until(&chosen(&expression), Is::Shown).await;
    }
    for alert in prometheus.alerts().await {
        let expression = alert["query"].as_str().expect("an expression");
        for selector in selectors_of(expression) {
            prometheus.until(&selector, Is::Shown).await;
        }
    }
    bed.proxies.rabbitmq().stall(false);
    bed.sim().set_faults(Faults::none());
    terminate([daemon]);
}
