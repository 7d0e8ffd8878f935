//! The services of the installation, by their heartbeats.

use maud::{Markup, html};

use super::visit::Guest;
use super::words::{fill, number, span};
use crate::heartbeat::ProducerState;
use crate::operations::status::ServiceStatus;

/// The panel of all of them.
pub(super) fn panel(guest: &Guest, services: &[ServiceStatus]) -> Markup {
    let (texts, language) = (guest.texts(), guest.language);
    html! {
        section.panel aria-labelledby="services-title" {
            h2 #services-title { (texts.services) }
            table.stack {
                thead { tr {
                    th scope="col" { (texts.service) } th scope="col" { (texts.state) } th scope="col" { (texts.heard_of) }
                    th.number scope="col" { (texts.made_ready) } th scope="col" { (texts.version) }
                } }
                tbody {
                    @for service in services {
                        tr {
                            th scope="row" { (service.name()) }
                            td data-name=(texts.state) {
                                @match (service.is_missed, service.producer) {
                                    (true, _) => span.chip.bad { (texts.service_missed) },
                                    (_, Some(ProducerState::WaitsForLease | ProducerState::WaitsForCatalog)) => span.chip.wait { (texts.service_waits) },
                                    _ => span.chip.good { (texts.service_alive) },
                                }
                            }
                            td data-name=(texts.heard_of) {
                                @if service.silent_seconds < 2.0 { (texts.just_now) }
                                @else { (fill(texts.ago, &[&span(language, texts, service.silent_seconds)])) }
                            }
                            td.number data-name=(texts.made_ready) { (number(language, service.made_ready)) }
                            td data-name=(texts.version) { (service.version) }
                        }
                    }
                }
            }
        }
    }
}
