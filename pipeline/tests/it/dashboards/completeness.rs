//! Completeness and backfill: is every call there, and what is being brought in?

use super::grafana::{A_MINUTE, COUNT, Dashboard, ORANGE, Panel, SECONDS, SHARE};
use super::service_levels::{BY_TENANT, COMPLETE_BY_DAY, FRESH};

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        file: "completeness",
        title: "nice-knovvu: completeness and backfill",
        about: "What became of the calls, what the nights found, and how backfills go on.",
        rows: vec![
            ("What became of the calls", calls()),
            ("Nightly comparison", nights()),
            ("Backfill, dead letters, late recordings", later()),
        ],
    }
}

fn calls() -> Vec<Panel> {
    vec![
        Panel::graph(
            "Not complete, by tenant",
            SHARE,
            "Of the calls that came to their end within an hour, those that became dead letters. Well: below 0.1 %, or \
             no line, as without calls. Alert CompletenessBurnsFast.",
        )
        .of(COMPLETE_BY_DAY.share(BY_TENANT, "1h"), "{{tenant}}")
        .low_is_well(0.001, 0.014_4),
        Panel::graph(
            "Too late, by tenant",
            SHARE,
            "Of the calls that became ready within an hour, those beyond [flow] freshness_goal. Well: below 1 %, or no line, \
             as without calls. Alert FreshnessBurnsFast.",
        )
        .of(FRESH.share(BY_TENANT, "1h"), "{{tenant}}")
        .low_is_well(0.01, 0.144),
        Panel::graph(
            "Calls that came to their end, by tenant",
            A_MINUTE,
            "ready, no_recording and dead together. Well: follows the calls of the tenant's day.",
        )
        .of("60 * sum by (tenant) (rate(nice_knovvu_calls_finished_total{T}[R]))", "{{tenant}}")
        .stacked(),
    ]
}

fn nights() -> Vec<Panel> {
    vec![
        Panel::number(
            "Missing at the last night",
            COUNT,
            "Calls that NICE had and we had not; they are replayed. Well: 0. Two nights in a row: alert \
             CallsWereMissing.",
        )
        .of("max by (tenant) (nice_knovvu_replay_last_missing{T,kind=\"reconciliation\"})", "{{tenant}}")
        .none_is_well(ORANGE)
        .wide(8),
        Panel::number(
            "Since the last comparison",
            SECONDS,
            "Well: below a day. Above two days: alert ReconciliationOverdue.",
        )
        .of(
            "time() - max by (tenant) \
             (nice_knovvu_replay_last_finished_timestamp_seconds{T,kind=\"reconciliation\"} > 0)",
            "{{tenant}}",
        )
        .low_is_well(90_000.0, 180_000.0)
        .wide(8),
        Panel::number(
            "Pieces of NICE's list that did not add up",
            COUNT,
            "At the last comparison, and at the last poll. Well: 0. If not: calls may be missing from the list. Alert \
             NiceListDoubtful.",
        )
        .of("max(nice_knovvu_replay_last_doubtful{T,kind=\"reconciliation\"})", "comparison")
        .of("max(nice_knovvu_poll_list_doubtful{T})", "poll")
        .none_is_well(ORANGE)
        .wide(8),
        Panel::graph(
            "Compared calls, by what became of them",
            COUNT,
            "In the last 24 hours, by nights and backfills: ready, no_recording, dead, excluded (left out by the \
             settings), in_flight, missing (replayed), marked (only the catalog knew it). Well: missing is 0 for \
             reconciliation.",
        )
        .of(
            "sum by (kind, verdict) (increase(nice_knovvu_replay_conversations_total{T}[1d])) > 0 or none(kind)",
            "{{kind}} {{verdict}}",
        )
        .wide(12),
        Panel::graph(
            "Agents of the group",
            COUNT,
            "Whose calls are brought in. held: would leave if a reading that is not believed were taken. Well: a level \
             line, held at 0. Alerts GroupHeld and AgentsNotSynced.",
        )
        .of("max by (tenant, state) (nice_knovvu_agents{T})", "{{tenant}} {{state}}")
        .of("max by (tenant) (nice_knovvu_agents_held{T})", "{{tenant}} held")
        .wide(12),
    ]
}

fn later() -> Vec<Panel> {
    vec![
        Panel::graph(
            "Calls that backfills have yet to publish",
            COUNT,
            "Well: goes down to 0. If it stands still: the quota (NICE and quota), or `nice-knovvu backfill status`.",
        )
        .of("max by (tenant) (nice_knovvu_backfill_remaining_conversations{T})", "{{tenant}}"),
        Panel::graph(
            "Dead letters",
            COUNT,
            "On the shelf now, and since the start of the processes: replayed by themselves, and dropped because they \
             stood for too long. Well: an empty shelf, none dropped. Alerts DeadLettersUnattended, DeadLettersDropped.",
        )
        .of("max(nice_knovvu_dead_letters_shelved{I})", "on the shelf")
        .of("sum(nice_knovvu_dead_letters_replayed_total{I})", "replayed")
        .of("sum(nice_knovvu_dead_letters_dropped_total{I})", "dropped"),
        Panel::graph(
            "Recordings that lacked, and that came late",
            COUNT,
            "In the last 24 hours: named by NICE and not given when their call became ready, and brought in later by a \
             recheck. Well: few, and the second follows the first.",
        )
        .of("sum by (tenant) (increase(nice_knovvu_recordings_missing_total{T}[1d]))", "{{tenant}} lacked")
        .of("sum by (tenant) (increase(nice_knovvu_recordings_late_total{T}[1d]))", "{{tenant}} came late"),
        Panel::number(
            "Beyond the retention, last swept",
            SECONDS,
            "Since all that is older than the retention of its tenant was last erased. Well: about an hour where a \
             retention is set. If it stands: see docs/OPERATIONS.md.",
        )
        .of("time() - (max(nice_knovvu_retention_last_sweep_timestamp_seconds{I}) > 0)", "")
        .low_is_well(7_200.0, 86_400.0)
        .wide(8),
        Panel::number(
            "Turns that another producer ended",
            COUNT,
            "Since the start of the processes. Well: 0, or one for each time that another machine took over.",
        )
        .of("sum by (tenant) (nice_knovvu_producer_turns_refused_total{T})", "{{tenant}}")
        .wide(8),
        Panel::number(
            "Holds the lease",
            COUNT,
            "Which process is the producer of its tenant. Well: one for each tenant. If none: alert NobodyProduces.",
        )
        .of("nice_knovvu_producer_lease_held{T} == 1", "{{tenant}}: {{instance}}")
        .words(&[("1", "holds it", "green")])
        .wide(8),
    ]
}
