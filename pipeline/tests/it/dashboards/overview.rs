//! Overview: are calls lost or late, whose fault is it, and what runs?

use super::grafana::{A_MINUTE, AGO, BYTES, COUNT, Dashboard, GREEN, ORANGE, Panel, RED, SECONDS, SHARE};
use super::service_levels::{COMPLETE, FRESH, TOGETHER};

/// 1 and 0 of what works.
pub(crate) const WORKS: &[(&str, &str, &str)] = &[("0", "away", RED), ("1", "answers", GREEN)];

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        file: "overview",
        title: "nice-knovvu: overview",
        about: "Are calls lost or late, whose fault is it, and what to do.",
        rows: vec![
            ("Are calls lost or late?", promises()),
            ("Whose fault is it?", faults()),
            ("What moves", moves()),
            ("Processes", processes()),
        ],
    }
}

/// What is promised; the dashboard of a tenant shows the same of one.
pub(crate) fn promises() -> Vec<Panel> {
    vec![
        Panel::number(
            "Calls ready in time",
            SHARE,
            "Of the calls that became ready in the time shown, those within [flow] freshness_goal after their end; \
             backfills are not counted. Well: 99 % or more, or no calls. If not: the row below says whose fault it is. Alerts \
             FreshnessBurnsFast and FreshnessBurnsSlowly.",
        )
        .of(format!("1 - {}", FRESH.share(TOGETHER, "$__range")), "")
        .high_is_well(0.99, 0.95)
        .without("no calls"),
        Panel::number(
            "Calls complete",
            SHARE,
            "Of the calls that came to their end in the time shown, those that neither became a dead letter nor were \
             found missing at night. Well: 99.9 % or more, or no calls. If not: dashboard Completeness. Alerts \
             CompletenessBurnsFast and CompletenessBurnsSlowly.",
        )
        .of(format!("1 - {}", COMPLETE.share(TOGETHER, "$__range")), "")
        .high_is_well(0.999, 0.99)
        .without("no calls"),
        Panel::number(
            "Oldest call due",
            SECONDS,
            "How long the oldest call that a process has in hand has waited since it was due: since it ended, or since \
             its wait for NICE was over. Well: below 15 minutes. If not: alert CallsWait. Not known: calls wait on the \
             queue and nobody has one in hand, alert CallsStandStill; or the queue does not answer, alert \
             OutsideSystemAway.",
        )
        .of("max(nice_knovvu_freshness_lag_seconds{I})", "")
        .low_is_well(900.0, 3_600.0)
        .without("not known"),
        Panel::number(
            "Dead letters",
            COUNT,
            "Calls that were set aside and stand on the shelf now, each with its reason. Well: 0. If not: \
             `nice-knovvu dead-letters list`. Alert DeadLetters.",
        )
        .of("max(nice_knovvu_dead_letters_shelved{I})", "")
        .none_is_well(ORANGE),
        Panel::number(
            "Missing at the last night",
            COUNT,
            "Calls that NICE had and we had not, at the last nightly comparison; they are replayed. Well: 0. If not, \
             and two nights in a row: alert CallsWereMissing.",
        )
        .of("max(nice_knovvu_replay_last_missing{T,kind=\"reconciliation\"})", "")
        .none_is_well(ORANGE),
        Panel::number(
            "NICE last listed",
            SECONDS,
            "Since the poll of the slowest producer that has its lease last read NICE's list of ended calls whole. \
             Well: seconds. If not: alert PollBehind.",
        )
        .of(
            "time() - min(nice_knovvu_poll_last_listing_timestamp_seconds{T} > 0 \
             and on (instance) nice_knovvu_producer_lease_held == 1)",
            "",
        )
        .low_is_well(300.0, 900.0),
    ]
}

fn faults() -> Vec<Panel> {
    vec![
        Panel::number(
            "Outside systems",
            COUNT,
            "Whether broker (queue), database (catalog) and recording store work for every process. Well: all answer. \
             If not: nothing is lost, calls wait. Alert OutsideSystemAway.",
        )
        .of("min by (system) (nice_knovvu_outside_system_up{I})", "{{system}}")
        .words(WORKS)
        .wide(8),
        Panel::number(
            "Tenants whose NICE fails",
            COUNT,
            "Tenants for whose calls NICE, or the host of their recordings, fails for many at once. Well: 0. If not: \
             dashboard NICE and quota names them. Alert TenantSystemFails.",
        )
        .of("count(min by (tenant) (nice_knovvu_tenant_system_up{T}) == 0) or vector(0)", "")
        .none_is_well(RED),
        Panel::number(
            "Tenants that NICE refuses",
            COUNT,
            "Tenants whose key or role NICE has refused (401, 403) within five minutes. Well: 0; one refusal may be a \
             token that ran out. If it lasts: alert NiceRefusesUs.",
        )
        .of(
            "count(sum by (tenant) (rate(nice_knovvu_nice_answers_total{T,answer=\"refused\"}[5m])) > 0) or vector(0)",
            "",
        )
        .none_is_well(ORANGE),
        Panel::number(
            "Quota used",
            SHARE,
            "The fullest of NICE's budgets. Well: below 95 %; while a backfill runs it may be full. If live calls wait \
             for it: alert NiceQuotaLiveWaits.",
        )
        .of(
            "max(sum by (tenant, family) (max by (tenant, family, class) (nice_knovvu_nice_quota_used_requests{T})) \
             / max by (tenant, family) (nice_knovvu_nice_quota_limit_now_requests{T}))",
            "",
        )
        .low_is_well(0.95, 1.5),
        Panel::number(
            "Consumers and producers",
            COUNT,
            "Processes that answer Prometheus, and those that do not. Well: none is away. If not: alert ProcessDown.",
        )
        .of("count(up{job=\"nice-knovvu\"} == 1) or vector(0)", "answer")
        .of("count(up{job=\"nice-knovvu\"} == 0) or vector(0)", "away"),
        Panel::table(
            "Alerts that fire",
            "What Prometheus finds wrong now. A click leads to the runbook: what it means, and what to do.",
        )
        .of("sum by (alertname, severity, tenant, instance, system) (ALERTS{alertstate=\"firing\"})", "")
        .leads_to("Runbook", "${runbooks}/${__data.fields.alertname}.md")
        .wide(24),
    ]
}

fn moves() -> Vec<Panel> {
    vec![
        Panel::graph(
            "Calls that came to their end",
            A_MINUTE,
            "By what became of them: ready, no_recording (NICE had none until the deadline), dead (a dead letter). \
             Well: ready follows the calls of the day; dead is rare.",
        )
        .of("60 * sum by (result) (rate(nice_knovvu_calls_finished_total{T}[R]))", "{{result}}")
        .stacked(),
        Panel::graph(
            "End of call until ready",
            SECONDS,
            "For half of the calls, and for 95 of 100, NICE's own delay included. Well: below the goal, which is drawn \
             as a line of its own. With traces on, a dot is a call, and leads to its trace.",
        )
        .of("histogram_quantile(0.5, sum by (le) (rate(nice_knovvu_call_end_to_ready_seconds_bucket{I}[30m])))", "half")
        .of(
            "histogram_quantile(0.95, sum by (le) (rate(nice_knovvu_call_end_to_ready_seconds_bucket{I}[30m])))",
            "95 of 100",
        )
        .of("max(nice_knovvu_freshness_goal_seconds{I})", "goal"),
        Panel::graph(
            "On the queue",
            COUNT,
            "Calls by lane: live are due, backfill wait behind them, delayed wait for NICE or for a system, in_flight \
             are worked on. Well: live is near 0. If it grows: alert CallsWait.",
        )
        .of("max by (lane) (nice_knovvu_queue_backlog_messages{I})", "{{lane}}"),
    ]
}

fn processes() -> Vec<Panel> {
    vec![
        Panel::table("Processes", "What each process is. A click leads to its operator page.")
            .of("nice_knovvu_build_info{I}", "")
            .leads_to("Operator page", "http://${__data.fields.instance}/")
            .wide(16),
        Panel::number(
            "Running since",
            AGO,
            "Well: days. If it is minutes again and again: alert ProcessRestartsOften.",
        )
        .of("1000 * process_start_time_seconds{job=\"nice-knovvu\",instance=~\"$instance\"}", "{{instance}}")
        .wide(8),
        Panel::graph("Memory", BYTES, "Of each process. Well: below 512 MiB, and level. Alert MemoryHigh.")
            .of("process_resident_memory_bytes{job=\"nice-knovvu\",instance=~\"$instance\"}", "{{instance}}")
            .low_is_well(536_870_912.0, 1_073_741_824.0),
        Panel::graph("Processor", COUNT, "Cores in use by each process. Well: far below the cores of the machine.")
            .of("rate(process_cpu_seconds_total{job=\"nice-knovvu\",instance=~\"$instance\"}[R])", "{{instance}}"),
        Panel::graph(
            "Open files",
            SHARE,
            "Of what the process may open, connections included. Well: below 80 %. Alert FilesRunOut.",
        )
        .of(
            "process_open_fds{job=\"nice-knovvu\",instance=~\"$instance\"} \
             / process_max_fds{job=\"nice-knovvu\",instance=~\"$instance\"}",
            "{{instance}}",
        ),
        Panel::graph(
            "Free on the disk of the local state",
            BYTES,
            "Well: more than 2 GiB, and level. A full disk ends the process. A process without a local state has no \
             line. Alert DiskFills.",
        )
        .of("nice_knovvu_state_disk_free_bytes{I}", "{{instance}}"),
        Panel::graph(
            "Local state on disk",
            BYTES,
            "What the process keeps in [state] dir. Well: level; with the built-in queue and catalog it grows with the \
             calls. Alert StateGrows.",
        )
        .of("nice_knovvu_state_disk_bytes{I}", "{{instance}}"),
        Panel::graph(
            "Log lines and trace spans lost, local states set aside",
            COUNT,
            "Lines are lost where whoever reads the log stands still, spans where the collector of traces is away or slow; \
             a local state is set aside that does not open. Well: 0 of them. Alert StateSetAside.",
        )
        .of("sum(nice_knovvu_log_lines_dropped_total{I})", "lines lost")
        .of("sum(nice_knovvu_trace_spans_exported_total{I})", "spans sent")
        .of("sum(nice_knovvu_trace_spans_dropped_total{I})", "spans lost")
        .of("sum(nice_knovvu_state_set_aside_total{I})", "set aside"),
    ]
}
