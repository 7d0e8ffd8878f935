//! The chain of signed days, on the view *Completeness*: whether it holds, a mark in the calendar, and each file with its
//! links.

use jiff::civil::Date;
use maud::{Markup, html};

use super::reasons::reason;
use super::texts::Texts;
use super::visit::Guest;
use super::words::{fill, moment, number};
use crate::operations::OperationError;
use crate::proof::chain::{ChainDay, ProofChain};

/// Characters of a hash that are shown; the whole is in its title.
const SHOWN: usize = 12;

/// The chain, or why it cannot be read; none where no day is signed here.
pub(super) type ReadChain = Option<Result<ProofChain, OperationError>>;

/// What the calendar says of a signed day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DayMark {
    Whole,
    Broken,
}

/// Reads and checks the chain.
pub(super) async fn read(visit: &Guest) -> ReadChain {
    let operations = &visit.context.operations.proof;
    match operations.is_set() {
        true => Some(operations.chain().await),
        false => None,
    }
}

/// What is said first: that the chain is broken, and what to do; then who has signed, where that is not one and the same.
pub(super) fn verdict(visit: &Guest, chain: &ReadChain) -> Markup {
    let texts = visit.texts();
    html! {
        @match chain {
            Some(Ok(ProofChain { fault: Some(fault), .. })) => div.notice.bad role="alert" {
                p { strong { (fill(texts.chain_broken, &[&fault.file])) } " " (reason(visit, &fault.why)) }
                p { (texts.chain_remedy) }
                @if let Some(command) = check(visit) { p { code { (command) } } }
            },
            Some(Err(error)) => p.notice.bad role="alert" { (reason(visit, &error.to_string())) },
            Some(Ok(_)) | None => {}
        }
        @if let Some(Ok(chain)) = chain {
            @for day in chain.key_changes() {
                p.notice role="status" { (fill(texts.key_changed, &[&day.day])) " " span.mono { (day.public_key.as_deref().unwrap_or_default()) } }
            }
            @if let Some(own) = foreign(visit, chain) { p.notice role="status" { (texts.key_not_ours) " " span.mono { (own) } } }
        }
    }
}

/// The key of the settings, where the newest day is signed with another.
fn foreign<'v>(visit: &'v Guest, chain: &ProofChain) -> Option<&'v str> {
    let signed_with = chain.days.last()?.public_key.as_deref()?;
    visit.context.operations.proof.public_key().filter(|own| *own != signed_with)
}

/// The command that checks the folder.
fn check(visit: &Guest) -> Option<String> {
    let operations = &visit.context.operations.proof;
    let (folder, key) = (operations.folder().ok()?, operations.public_key().unwrap_or("KEY"));
    Some(format!("nice-knovvu report verify {} --public-key {key}", folder.path().display()))
}

/// Whether a day is signed, and its file right.
pub(super) fn mark(chain: &ReadChain, day: Date) -> Option<DayMark> {
    let Some(Ok(chain)) = chain else { return None };
    let signed = chain.days.iter().find(|signed| signed.day == day)?;
    Some(if signed.verified { DayMark::Whole } else { DayMark::Broken })
}

/// The mark in the calendar.
pub(super) fn sign(texts: &Texts, mark: DayMark) -> Markup {
    let (class, sign, says) = match mark {
        DayMark::Whole => ("signed", "✓", texts.day_signed),
        DayMark::Broken => ("signed broken", "✕", texts.link_broken),
    };
    html! { span class=(class) title=(says) { span aria-hidden="true" { (sign) } span.hidden { " " (says) } } }
}

/// The files of a month, the newest first.
pub(super) fn panel(visit: &Guest, chain: &ReadChain, first: Date, last: Date) -> Markup {
    let (texts, language) = (visit.texts(), visit.language);
    html! {
        section.panel aria-labelledby="signed-title" {
            h2 #signed-title { (texts.signed_days) }
            p.quiet { (texts.signed_days_says) }
            @match chain {
                None => p.quiet { (texts.signed_days_off) },
                // Why is said at the top.
                Some(Err(_)) => {}
                Some(Ok(chain)) => {
                    @if let (None, Some(oldest), Some(newest)) = (&chain.fault, chain.days.first(), chain.days.last()) {
                        p { span.chip.good { (texts.link_holds) } " " (fill(texts.chain_whole, &[&number(language, chain.days.len() as u64), &oldest.day, &newest.day])) }
                        dl.facts {
                            dt { (texts.newest_hash) } dd.mono { (newest.hash) }
                            @if let Some(key) = &newest.public_key { dt { (texts.key_id) } dd.mono { (key) } }
                        }
                    }
                    @for gap in &chain.gaps { p.quiet { (fill(texts.chain_gap, &[gap])) } }
                    @let of_month: Vec<_> = chain.days.iter().rev().filter(|day| (first..=last).contains(&day.day)).collect();
                    @if of_month.is_empty() { p.quiet { (texts.no_signed_days) } } @else {
                        table.stack {
                            thead { tr {
                                th scope="col" { (texts.day) } th scope="col" { (texts.hash) } th scope="col" { (texts.previous_hash) }
                                th scope="col" { (texts.signed_at) } th scope="col" { (texts.key_id) } th scope="col" { (texts.link) }
                            } }
                            tbody { @for day in of_month { (row(texts, day)) } }
                        }
                    }
                }
            }
        }
    }
}

fn row(texts: &Texts, day: &ChainDay) -> Markup {
    let (class, word) = match (day.verified, day.made_at) {
        (true, _) => ("good", texts.link_holds),
        (false, Some(_)) if !day.linked => ("bad", texts.link_broken),
        (false, _) => ("bad", texts.file_wrong),
    };
    html! {
        tr {
            th scope="row" { a href={ "/completeness/" (day.day) } { (day.day) } }
            td data-name=(texts.hash) { (short(&day.hash)) }
            td data-name=(texts.previous_hash) {
                @match &day.previous {
                    Some(previous) => (short(previous)),
                    None if day.made_at.is_some() => span.quiet { (texts.first_file) },
                    None => "–",
                }
            }
            td data-name=(texts.signed_at) { @match day.made_at { Some(at) => (moment(at)), None => "–" } }
            td data-name=(texts.key_id) { @match &day.public_key { Some(key) => (short(key)), None => "–" } }
            td data-name=(texts.link) { span class={ "chip " (class) } { (word) } }
        }
    }
}

/// The beginning of a hash or a key.
fn short(hash: &str) -> Markup {
    let shown: String = hash.chars().take(SHOWN).collect();
    html! { span.mono.nowrap title=(hash) { (shown) "…" } }
}
