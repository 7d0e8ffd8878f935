//! Flow: what each stage does, and what holds it up.

use super::grafana::{A_SECOND, COUNT, Dashboard, Panel, SECONDS, SHARE};

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        file: "flow",
        title: "nice-knovvu: flow",
        about: "Stage by stage: what passes, what fails, what takes long, and what waits for what.",
        rows: vec![("Stages", stages()), ("Finding calls", finding()), ("Recordings", recordings())],
    }
}

fn stages() -> Vec<Panel> {
    vec![
        Panel::graph(
            "Finished, by stage",
            A_SECOND,
            "What each stage has passed on or ended in good order. Well: all stages go at the same pace.",
        )
        .of("sum by (stage) (rate(nice_knovvu_stage_items_total{I,outcome=~\"ok|done\"}[R]))", "{{stage}}"),
        Panel::graph(
            "Not finished, by stage and outcome",
            A_SECOND,
            "retry: an outside system failed; not_ready: NICE has no recording yet; busy: the quota of its tenant is \
             used up, or its NICE silent; dead_letter: set aside; handed_back: goes to another process. Well: \
             not_ready only. Alert StageFails.",
        )
        .of(
            "sum by (stage, outcome) (rate(nice_knovvu_stage_items_total{I,outcome!~\"ok|done\"}[R])) > 0 \
             or none(stage)",
            "{{stage}} {{outcome}}",
        ),
        Panel::graph(
            "Fails, by stage",
            SHARE,
            "Of what a stage is given, what it tries again later. Well: 0. Above one half for a quarter of an hour: \
             alert StageFails.",
        )
        .of(
            "sum by (stage) (rate(nice_knovvu_stage_items_total{I,outcome=\"retry\"}[10m])) \
             / (sum by (stage) (rate(nice_knovvu_stage_items_total{I}[10m])) > 0) or none(stage)",
            "{{stage}}",
        )
        .low_is_well(0.5, 0.8),
        Panel::graph(
            "Time per item, 99 of 100",
            SECONDS,
            "How long a stage works on one item at most, but for one in a hundred. Well: level. `upload` takes as long \
             as its recording is large. With traces on, a dot is an item, and leads to its trace.",
        )
        .of(
            "histogram_quantile(0.99, sum by (le, stage) \
             (rate(nice_knovvu_stage_duration_seconds_bucket{I}[R]))) > 0",
            "{{stage}}",
        ),
        Panel::graph(
            "In flight, by stage",
            COUNT,
            "Items that a stage is working on now. Well: below [consumer] concurrency for each tenant.",
        )
        .of("sum by (stage) (nice_knovvu_stage_in_flight{I})", "{{stage}}"),
        Panel::graph(
            "Held up, by stage",
            COUNT,
            "Items that stand still at a stage because the next one is full. The stage after the highest line is the \
             narrow one. Well: 0.",
        )
        .of("sum by (stage) (rate(nice_knovvu_stage_wait_seconds_total{I}[R]))", "{{stage}}"),
        Panel::graph(
            "Oldest call due, by process",
            SECONDS,
            "Of those that it has in hand, since it ended, or since its wait for NICE was over; no line where it has \
             none and others wait on the queue. Well: below 15 minutes. Alert CallsWait.",
        )
        .of("nice_knovvu_freshness_lag_seconds{I}", "{{instance}}")
        .low_is_well(900.0, 3_600.0),
        Panel::graph(
            "Dead letters written, by stage",
            A_SECOND,
            "Calls that were set aside for what waiting does not heal. Well: none. Alert DeadLetters.",
        )
        .of("sum by (stage) (rate(nice_knovvu_dead_letters_total{I}[R]))", "{{stage}}"),
        Panel::graph(
            "Needed no work, by reason",
            A_SECOND,
            "already_final and copy: NICE or the queue repeated itself; not_in_group: another group's call; \
             no_recording: final without one. Well: small beside what is finished.",
        )
        .of("sum by (reason) (rate(nice_knovvu_conversations_done_total{I}[R])) > 0 or none(reason)", "{{reason}}"),
    ]
}

fn finding() -> Vec<Panel> {
    vec![
        Panel::graph(
            "Webhook, by answer",
            A_SECOND,
            "202: taken; 401: wrong token; 400 and 413: no event; 503: the local state takes nothing. Well: 202 only. \
             Alert WebhookRefused.",
        )
        .of("sum by (status) (rate(nice_knovvu_webhook_requests_total{T}[R]))", "{{status}}"),
        Panel::graph(
            "Agents listened to, and their events",
            COUNT,
            "Agents whose session is listened to (joined) or not (absent), and events a second. 0 where \
             [events] agent_sessions is off.",
        )
        .of("sum by (state) (nice_knovvu_agent_sessions{T})", "{{state}}")
        .of("sum by (type) (rate(nice_knovvu_agent_session_events_total{T}[R]))", "{{type}} a second"),
        Panel::graph(
            "Ids remembered",
            COUNT,
            "Calls of the hot window, by which a repeat is known at once. Well: level from day to day.",
        )
        .of("nice_knovvu_processed_ids{I}", "{{instance}}"),
    ]
}

fn recordings() -> Vec<Panel> {
    vec![
        Panel::graph(
            "Looks for a recording, by what they found",
            A_SECOND,
            "there, not_ready or given_up (the deadline is over). Well: little more than one look for each recording.",
        )
        .of("sum by (found) (rate(nice_knovvu_recording_looks_total{I}[R]))", "{{found}}"),
        Panel::graph(
            "First look after the end of a call",
            SECONDS,
            "Learned from the calls before: when NICE is likely to have the recording. Well: level; where it grows, \
             NICE has become slower.",
        )
        .of("max by (tenant) (nice_knovvu_recording_first_look_seconds{T})", "{{tenant}}"),
        Panel::graph(
            "Downloads begun again, interactions passed over",
            A_SECOND,
            "A download that breaks is resumed; an interaction that is no call is passed over. Well: few of the first.",
        )
        .of("sum(rate(nice_knovvu_recording_resumes_total{I}[R]))", "begun again")
        .of("sum by (type) (rate(nice_knovvu_interactions_skipped_total{I}[R])) > 0", "{{type}}"),
    ]
}
