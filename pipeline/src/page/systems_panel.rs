//! Every outside system in words: well, or since when it is not, why, how many calls wait, and what to do.

use maud::{Markup, html};

use super::parts::Mood;
use super::reasons::reason;
use super::texts::{Language, Texts};
use super::visit::Guest;
use super::words::{number, short_moment, short_time};
use crate::systems::{SystemState, SystemStatus};

/// The panel of all of them.
pub(super) fn panel(guest: &Guest, systems: &[SystemStatus]) -> Markup {
    let (texts, language) = (guest.texts(), guest.language);
    html! {
        section.panel aria-labelledby="systems-title" {
            h2 #systems-title { (texts.outside_systems) }
            table.stack {
                thead { tr { th scope="col" { (texts.system) } th scope="col" { (texts.state) } th.number scope="col" { (texts.system_waiting) } } }
                tbody {
                    @for system in systems {
                        tr {
                            th scope="row" { (name(texts, system)) }
                            td data-name=(texts.state) {
                                div {
                                    span class={ "chip " (chip(system.state)) } { (state(texts, system.state)) }
                                    @if let Some(since) = system.since { " " span.quiet { (since_words(texts, short_time(since, guest.now))) } }
                                    @else if let Some(at) = system.well_at { " " span.quiet { (short_moment(at, guest.now)) } }
                                    @if let Some(why) = &system.reason { div.quiet.reason { (reason(guest, why)) } }
                                    @if let Some(remedy) = remedy(texts, language, system) { div { strong { (remedy) } } }
                                }
                            }
                            td.number data-name=(texts.system_waiting) { (number(language, system.waiting)) }
                        }
                    }
                }
            }
        }
    }
}

/// What a person reads first where a system is away: its name, how it stands, since when.
pub(super) fn headline(guest: &Guest, system: &SystemStatus) -> String {
    let texts = guest.texts();
    let said = format!("{}: {}", name(texts, system), state(texts, system.state));
    match system.since {
        Some(since) => format!("{said} {}", since_words(texts, short_time(since, guest.now))),
        None => said,
    }
}

/// How bad the state of a system is.
pub(super) fn mood(state: SystemState) -> Mood {
    match state {
        SystemState::BuiltIn | SystemState::Well | SystemState::Unasked => Mood::Good,
        SystemState::Limited => Mood::Warn,
        SystemState::Failing | SystemState::Away | SystemState::Refused => Mood::Bad,
    }
}

/// What to do. The commands' words are English.
pub(super) fn remedy(texts: &Texts, language: Language, system: &SystemStatus) -> Option<String> {
    let english = system.remedy.as_deref()?;
    Some(match (language, system.state) {
        (Language::English, _) => {
            let mut letters = english.chars();
            let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
            format!("{first}{}.", letters.as_str())
        }
        (Language::Turkish, SystemState::Limited) => texts.verdict_lowered_detail.to_owned(),
        (Language::Turkish, SystemState::Refused) => texts.remedy_refused.to_owned(),
        (Language::Turkish, _) => match system.system.as_str() {
            "catalog" => texts.remedy_catalog,
            "queue" => texts.remedy_queue,
            "recording_store" => texts.remedy_recording_store,
            _ => texts.remedy_nice,
        }
        .to_owned(),
    })
}

/// A system, as people call it.
pub(super) fn system_name(texts: &Texts, system: &str) -> &'static str {
    match system {
        "nice" => texts.system_nice,
        "media_host" => texts.system_media_host,
        "recording_store" => texts.system_recording_store,
        "catalog" => texts.system_catalog,
        "queue" => texts.queue,
        _ => texts.system_call,
    }
}

fn name(texts: &Texts, system: &SystemStatus) -> String {
    let name = system_name(texts, &system.system);
    system.tenant.as_ref().map_or_else(|| name.to_owned(), |tenant| format!("{name} ({tenant})"))
}

fn since_words(texts: &Texts, since: String) -> String {
    super::words::fill(texts.verdict_since, &[&since])
}

fn state(texts: &Texts, state: SystemState) -> &'static str {
    match state {
        SystemState::BuiltIn => texts.system_built_in,
        SystemState::Well => texts.system_well,
        SystemState::Unasked => texts.system_unasked,
        SystemState::Limited => texts.system_limited,
        SystemState::Failing => texts.system_failing,
        SystemState::Away => texts.system_away,
        SystemState::Refused => texts.system_refused,
    }
}

fn chip(state: SystemState) -> &'static str {
    match state {
        SystemState::BuiltIn | SystemState::Unasked => "",
        state => mood(state).class(),
    }
}
