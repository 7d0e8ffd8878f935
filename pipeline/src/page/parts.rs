//! What several views are made of.

use maud::{Markup, html};

use super::texts::Texts;
use super::visit::Guest;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mood {
    Good,
    Warn,
    Bad,
}

impl Mood {
    /// The class of its colours.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// The field that every form carries; none for who has no session.
pub(super) fn form_token(guest: &Guest) -> Markup {
    html! { @if let Some(form) = &guest.visitor.form_token { input type="hidden" name="form" value=(form); } }
}

/// The state of a conversation in a word.
pub(super) fn state_chip(texts: &Texts, state: &str) -> Markup {
    let (class, word) = match state {
        "ready" => ("good", texts.state_ready),
        "no_recording" => ("", texts.state_no_recording),
        "metadata_saved" => ("wait", texts.state_metadata_saved),
        "under_way" => ("wait", texts.state_under_way),
        "dead_letter" => ("bad", texts.state_dead_letter),
        "erased" => ("", texts.state_erased),
        "dropped" => ("", texts.state_dropped),
        _ => ("", "?"),
    };
    html! { span class={ "chip " (class) } { (word) } }
}

/// A stage in a word or two.
pub(super) fn stage_name(texts: &Texts, stage: &str) -> &'static str {
    match stage {
        "source" => texts.stage_source,
        "dedupe" => texts.stage_dedupe,
        "enqueue" => texts.stage_enqueue,
        "dequeue" => texts.stage_dequeue,
        "await_recording" => texts.stage_await_recording,
        "fetch_metadata" => texts.stage_fetch_metadata,
        "download_recording" => texts.stage_download_recording,
        "persist" => texts.stage_persist,
        "upload" => texts.stage_upload,
        _ => texts.stage_other,
    }
}

/// A sign beside a verdict.
pub(super) fn sign(mood: Mood) -> Markup {
    html! {
        svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2.2" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" {
            @match mood {
                Mood::Good => { circle cx="12" cy="12" r="10" {} path d="M7.5 12.5l3 3 6-6.5" {} }
                Mood::Warn => { path d="M12 3 2.2 20.5h19.6z" {} path d="M12 10v4.5M12 17.6v.1" {} }
                Mood::Bad => { circle cx="12" cy="12" r="10" {} path d="M12 7v6.5M12 16.8v.1" {} }
            }
        }
    }
}
