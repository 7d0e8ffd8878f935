//! Queue and stores: the systems that every call needs.

use super::grafana::{A_SECOND, BYTES_A_SECOND, COUNT, Dashboard, GREEN, ORANGE, Panel, RED, SECONDS};
use super::overview::WORKS;

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        file: "servers",
        title: "nice-knovvu: queue and stores",
        about: "Broker, database and recording store, as the processes see them, and the analysis queue.",
        rows: vec![("Do they answer?", answers()), ("Queue", queue()), ("Stores", stores())],
    }
}

fn answers() -> Vec<Panel> {
    vec![
        Panel::number(
            "Outside systems",
            COUNT,
            "For every process. Well: all answer. If not: nothing is lost, calls wait. Alert OutsideSystemAway.",
        )
        .of("min by (system) (nice_knovvu_outside_system_up{I})", "{{system}}")
        .words(WORKS)
        .wide(12),
        Panel::number(
            "Broker takes messages",
            COUNT,
            "Not while it is short of memory or disk. Well: yes. If not: give it room. Alert BrokerTakesNothing.",
        )
        .of("max(nice_knovvu_queue_connection_blocked{I})", "")
        .words(&[("0", "yes", GREEN), ("1", "no", RED)])
        .wide(6),
        Panel::number(
            "On the shelf of the analysis",
            COUNT,
            "Calls that the workers of the analysis gave up. Well: 0. If not: `select * from analysis_failed`. Alert \
             AnalysisFailed.",
        )
        .of("max(nice_knovvu_analysis_entries{I,state=\"failed\"})", "")
        .none_is_well(ORANGE)
        .wide(6),
        Panel::graph(
            "Outside systems, by process",
            COUNT,
            "1 while the process finds that the system works. A step down on one line alone is the network of that \
             process.",
        )
        .of("nice_knovvu_outside_system_up{I}", "{{instance}} {{system}}")
        .wide(24),
    ]
}

fn queue() -> Vec<Panel> {
    vec![
        Panel::graph(
            "Messages, by lane",
            COUNT,
            "live are due, backfill wait behind them, delayed wait for NICE or for a system, in_flight are worked on. \
             Well: live is near 0. Alerts CallsWait and CallsStandStill.",
        )
        .of("max by (lane) (nice_knovvu_queue_backlog_messages{I})", "{{lane}}"),
        Panel::graph(
            "Taken from the queue",
            A_SECOND,
            "By process. Well: all consumers take their share. None while messages are due: alert CallsStandStill.",
        )
        .of("sum by (instance) (rate(nice_knovvu_stage_items_total{I,stage=\"dequeue\"}[R]))", "{{instance}}"),
        Panel::graph(
            "Connections to the broker made again",
            A_SECOND,
            "Each break repeats what was under way, and loses nothing. Well: none. Alert BrokerConnectionBreaks.",
        )
        .of("sum by (instance) (rate(nice_knovvu_queue_reconnects_total{I}[R]))", "{{instance}}"),
    ]
}

fn stores() -> Vec<Panel> {
    vec![
        Panel::graph(
            "Recordings stored",
            BYTES_A_SECOND,
            "Bytes that lie whole in the store. Well: follows the calls.",
        )
        .of("sum(rate(nice_knovvu_recording_stored_bytes_total{I}[R]))", "stored"),
        Panel::graph(
            "Requests sent again",
            A_SECOND,
            "To the recording store, by operation, because it refused or dropped them. Well: near 0. Alert \
             RecordingStoreFails.",
        )
        .of("sum by (operation) (rate(nice_knovvu_recording_store_retries_total{I}[R])) > 0 or none(operation)", "{{operation}}"),
        Panel::graph(
            "Recordings read back, by result",
            A_SECOND,
            "By `verify`, and by the nights where that is on. Well: same only. Alert RecordingDiffers.",
        )
        .of("sum by (result) (rate(nice_knovvu_recordings_verified_total{I}[R]))", "{{result}}"),
        Panel::graph(
            "Analysis queue, by state",
            COUNT,
            "waiting for a worker, claimed by one, failed (on the shelf); each counted up to 10,000. Well: waiting does \
             not grow from day to day. Alert AnalysisFailed.",
        )
        .of("max by (state) (nice_knovvu_analysis_entries{I})", "{{state}}"),
        Panel::graph(
            "Time to write a call, 99 of 100",
            SECONDS,
            "persist writes the row (database), upload the recordings (store and database), enqueue the message \
             (queue). Well: level. The one that grows names the slow system.",
        )
        .of(
            "histogram_quantile(0.99, sum by (le, stage) \
             (rate(nice_knovvu_stage_duration_seconds_bucket{I,stage=~\"persist|upload|enqueue\"}[R]))) > 0",
            "{{stage}}",
        ),
        Panel::graph(
            "Erasures",
            COUNT,
            "pending: looked at again until nothing of the call can appear any more; done, by reason. Well: pending \
             goes back to 0.",
        )
        .of("max(nice_knovvu_erasures_pending{I})", "pending")
        .of("sum by (reason) (nice_knovvu_conversations_erased_total{I})", "done, {{reason}}"),
    ]
}
