//! The flow, drawn stage by stage: in two rows on a wide screen, in one column on a narrow one.

use maud::{Markup, html};
use queue::Backlog;

use super::parts::stage_name;
use super::samples::{Samples, StageRate};
use super::texts::{Language, Texts};
use super::words::{decimal, fill, number};

/// What finds calls, in the order of the flow.
pub(super) const FINDING: [&str; 3] = ["source", "dedupe", "enqueue"];

/// What brings them in.
pub(super) const BRINGING: [&str; 6] =
    ["dequeue", "await_recording", "fetch_metadata", "download_recording", "persist", "upload"];

const WIDTH: usize = 164;
const HEIGHT: usize = 96;

/// What is drawn.
pub(super) struct FlowPicture<'a> {
    pub(super) texts: &'static Texts,
    pub(super) language: Language,
    pub(super) samples: &'a Samples,
    /// None: the queue does not answer.
    pub(super) backlog: Option<Backlog>,
    pub(super) ready: Option<u64>,
}

impl FlowPicture<'_> {
    /// Both drawings; one of them is shown.
    pub(super) fn draw(&self) -> Markup {
        html! { div.flow { (self.wide()) (self.narrow()) } }
    }

    /// What a screen reader says in place of the picture.
    fn says(&self) -> String {
        let waiting = self.backlog.map_or(0, |backlog| backlog.live + backlog.backfill + backlog.delayed);
        fill(
            self.texts.flow_says,
            &[&number(self.language, waiting), &number(self.language, self.ready.unwrap_or_default())],
        )
    }

    fn wide(&self) -> Markup {
        let step = WIDTH + 32;
        let row = 158;
        html! {
            svg.wide viewBox="0 0 1150 280" role="img" aria-label=(self.says()) {
                text.group x="2" y="12" { (self.texts.producer) }
                text.group x="98" y=(row + 12) { (self.texts.consumer) }
                @for (at, stage) in FINDING.iter().enumerate() {
                    (self.stage(at * step + 2, 22, stage))
                    (self.pipe(&format!("M{} 70h30", at * step + 2 + WIDTH + 1), self.moves(stage)))
                }
                (self.queue(3 * step + 2, 22))
                (self.pipe("M672 119v22H84v38", self.moves("dequeue")))
                @for (at, stage) in BRINGING.iter().enumerate() {
                    (self.stage(at * step + 2, row + 22, stage))
                    @if at > 0 { (self.pipe(&format!("M{} {}h30", at * step + 2 - 31, row + 70), self.moves(stage))) }
                }
                (self.end(5 * step + 2, 22))
                (self.pipe(&format!("M1064 {}V119", row + 21), self.moves("upload")))
            }
        }
    }

    fn narrow(&self) -> Markup {
        let all: Vec<_> = FINDING.iter().chain(&BRINGING).collect();
        let step = 124;
        html! {
            svg.narrow viewBox={ "0 0 340 " ((all.len() + 2) * step - 24) } role="img" aria-label=(self.says()) {
                @for (at, stage) in all.iter().enumerate() {
                    @let place = if at < FINDING.len() { at } else { at + 1 };
                    (self.stage(88, place * step + 2, stage))
                    (self.pipe(&format!("M170 {}v26", place * step + 2 + HEIGHT + 1), self.moves(stage)))
                }
                (self.queue(88, FINDING.len() * step + 2))
                (self.pipe(&format!("M170 {}v26", FINDING.len() * step + 2 + HEIGHT + 1), self.moves("dequeue")))
                (self.end(88, (all.len() + 1) * step + 2))
            }
        }
    }

    fn moves(&self, stage: &str) -> bool {
        self.samples.rate(stage).per_minute.is_some_and(|rate| rate > 0.0)
    }

    fn pipe(&self, path: &str, moves: bool) -> Markup {
        html! { path.pipe d=(path) {} @if moves { path.pipe.moves d=(path) {} } }
    }

    fn stage(&self, x: usize, y: usize, stage: &str) -> Markup {
        let StageRate { in_flight, per_minute, failed } = self.samples.rate(stage);
        let class = match (failed > 0, in_flight > 0) {
            (true, _) => "box fails",
            (_, true) => "box busy",
            _ => "box",
        };
        let rate = per_minute.map_or_else(
            || "–".to_owned(),
            |rate| match rate {
                10.0.. => format!("{rate:.0}"),
                _ => decimal(self.language, rate),
            },
        );
        html! {
            rect class=(class) x=(x) y=(y) width=(WIDTH) height=(HEIGHT) rx="9" {}
            text.name x=(x + 12) y=(y + 23) { (stage_name(self.texts, stage)) }
            text x=(x + 12) y=(y + 51) { tspan.rate { (rate) } tspan.small-text dx="5" { (self.texts.per_minute) } }
            text.small-text x=(x + 12) y=(y + 70) { (fill(self.texts.in_work, &[&in_flight.max(0)])) }
            @if failed > 0 { text.bad-text x=(x + 12) y=(y + 87) { (fill(self.texts.failures, &[&failed])) } }
        }
    }

    fn queue(&self, x: usize, y: usize) -> Markup {
        let count = |count: u64| number(self.language, count);
        html! {
            rect.box.store x=(x) y=(y) width=(WIDTH) height=(HEIGHT) rx="9" {}
            text.name x=(x + 12) y=(y + 23) { (self.texts.queue) }
            @match self.backlog {
                Some(backlog) => {
                    text.small-text x=(x + 12) y=(y + 44) { (fill(self.texts.queue_live, &[&count(backlog.live)])) }
                    text.small-text x=(x + 12) y=(y + 63) { (fill(self.texts.queue_backfill, &[&count(backlog.backfill)])) }
                    text.wait-text x=(x + 12) y=(y + 82) { (fill(self.texts.queue_delayed, &[&count(backlog.delayed)])) }
                }
                None => text.bad-text x=(x + 12) y=(y + 51) { (self.texts.unknown) },
            }
        }
    }

    fn end(&self, x: usize, y: usize) -> Markup {
        let ready = self.ready.map_or_else(|| self.texts.unknown.to_owned(), |ready| number(self.language, ready));
        html! {
            rect.box.store x=(x) y=(y) width=(WIDTH) height=(HEIGHT) rx="9" {}
            text.name x=(x + 12) y=(y + 23) { (self.texts.analysis_queue) }
            text x=(x + 12) y=(y + 51) { tspan.rate { (ready) } }
            text.small-text x=(x + 12) y=(y + 70) { (self.texts.ready_for_analysis) }
        }
    }
}
