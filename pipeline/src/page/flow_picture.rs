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

/// The height of a stage on a narrow screen.
const LINE: usize = 48;

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

    /// One line for each stage, so that the whole fits a phone.
    fn narrow(&self) -> Markup {
        let step = LINE + 14;
        let stages =
            FINDING.iter().map(|stage| Some(*stage)).chain([None]).chain(BRINGING.iter().map(|stage| Some(*stage)));
        let lines: Vec<_> = stages.collect();
        html! {
            svg.narrow viewBox={ "0 0 340 " ((lines.len() + 1) * step - 12) } role="img" aria-label=(self.says()) {
                @for (at, stage) in lines.iter().enumerate() {
                    @match stage {
                        Some(stage) => (self.line(at * step + 2, stage)),
                        None => (self.queue_line(at * step + 2)),
                    }
                    @let path = format!("M170 {}v12", at * step + 2 + LINE + 1);
                    (self.pipe(&path, self.moves(stage.unwrap_or("dequeue"))))
                }
                (self.end_line(lines.len() * step + 2))
            }
        }
    }

    fn line(&self, y: usize, stage: &str) -> Markup {
        let StageRate { in_flight, failed, .. } = self.samples.rate(stage);
        let failures = if failed > 0 { fill(self.texts.failures, &[&failed]) } else { String::new() };
        html! {
            rect class=(self.box_class(stage)) x="2" y=(y) width="336" height=(LINE) rx="8" {}
            text.name x="12" y=(y + 20) { (stage_name(self.texts, stage)) }
            text.small-text x="12" y=(y + 38) { (fill(self.texts.in_work, &[&in_flight.max(0)])) tspan.bad-text dx="8" { (failures) } }
            text x="328" y=(y + 29) text-anchor="end" { tspan.rate { (self.rate(stage)) } tspan.small-text dx="5" { (self.texts.per_minute) } }
        }
    }

    fn queue_line(&self, y: usize) -> Markup {
        let says = match self.backlog {
            Some(backlog) => [
                fill(self.texts.queue_live, &[&number(self.language, backlog.live)]),
                fill(self.texts.queue_backfill, &[&number(self.language, backlog.backfill)]),
                fill(self.texts.queue_delayed, &[&number(self.language, backlog.delayed)]),
            ]
            .join(" · "),
            None => self.texts.unknown.to_owned(),
        };
        html! {
            rect.box.store x="2" y=(y) width="336" height=(LINE) rx="8" {}
            text.name x="12" y=(y + 20) { (self.texts.queue) }
            text.small-text x="12" y=(y + 38) { (says) }
        }
    }

    fn end_line(&self, y: usize) -> Markup {
        html! {
            rect.box.store x="2" y=(y) width="336" height=(LINE) rx="8" {}
            text.name x="12" y=(y + 20) { (self.texts.analysis_queue) }
            text.small-text x="12" y=(y + 38) { (self.texts.ready_for_analysis) }
            text.rate x="328" y=(y + 29) text-anchor="end" { (self.ready_so_far()) }
        }
    }

    fn ready_so_far(&self) -> String {
        self.ready.map_or_else(|| self.texts.unknown.to_owned(), |ready| number(self.language, ready))
    }

    fn box_class(&self, stage: &str) -> &'static str {
        let StageRate { in_flight, failed, .. } = self.samples.rate(stage);
        match (failed > 0, in_flight > 0) {
            (true, _) => "box fails",
            (_, true) => "box busy",
            _ => "box",
        }
    }

    fn rate(&self, stage: &str) -> String {
        match self.samples.rate(stage).per_minute {
            None => "–".to_owned(),
            Some(rate) if rate >= 10.0 => number(self.language, rate.round() as u64),
            Some(rate) if rate < 0.05 => "0".to_owned(),
            Some(rate) => decimal(self.language, rate),
        }
    }

    fn moves(&self, stage: &str) -> bool {
        self.samples.rate(stage).per_minute.is_some_and(|rate| rate > 0.0)
    }

    fn pipe(&self, path: &str, moves: bool) -> Markup {
        html! { path.pipe d=(path) {} @if moves { path.pipe.moves d=(path) {} } }
    }

    fn stage(&self, x: usize, y: usize, stage: &str) -> Markup {
        let StageRate { in_flight, failed, .. } = self.samples.rate(stage);
        html! {
            rect class=(self.box_class(stage)) x=(x) y=(y) width=(WIDTH) height=(HEIGHT) rx="9" {}
            text.name x=(x + 12) y=(y + 23) { (stage_name(self.texts, stage)) }
            text x=(x + 12) y=(y + 51) { tspan.rate { (self.rate(stage)) } tspan.small-text dx="5" { (self.texts.per_minute) } }
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
        html! {
            rect.box.store x=(x) y=(y) width=(WIDTH) height=(HEIGHT) rx="9" {}
            text.name x=(x + 12) y=(y + 23) { (self.texts.analysis_queue) }
            text x=(x + 12) y=(y + 51) { tspan.rate { (self.ready_so_far()) } }
            text.small-text x=(x + 12) y=(y + 70) { (self.texts.ready_for_analysis) }
        }
    }
}
