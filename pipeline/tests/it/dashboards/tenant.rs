//! One tenant: are its calls lost or late, and whose fault is it?

use super::grafana::{A_MINUTE, A_SECOND, COUNT, Dashboard, Panel, SECONDS, SHARE};
use super::service_levels::{COMPLETE_BY_DAY, FRESH};
use super::{nice, overview};

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        file: "tenant",
        title: "nice-knovvu: one tenant",
        about: "Choose a tenant above. What is not counted by tenant, such as the stages, is on the other dashboards.",
        rows: vec![("Are its calls lost or late?", promises()), ("Whose fault is it?", faults()), ("Quota", quota())],
    }
}

fn promises() -> Vec<Panel> {
    let of_the_tenant = |panel: &Panel| panel.asks_of("{T");
    let mut panels: Vec<_> = overview::promises().into_iter().filter(of_the_tenant).collect();
    panels.extend([
        Panel::number(
            "First look after the end of a call",
            SECONDS,
            "Learned: when NICE is likely to have the recording. Well: below the goal. Where it grows, NICE has become \
             slower.",
        )
        .of("max(nice_knovvu_recording_first_look_seconds{T})", "")
        .wide(8),
        Panel::graph(
            "Calls that came to their end",
            A_MINUTE,
            "By what became of them: ready, no_recording (NICE had none until the deadline), dead (a dead letter).",
        )
        .of("60 * sum by (result) (rate(nice_knovvu_calls_finished_total{T}[R]))", "{{result}}")
        .stacked(),
        Panel::graph(
            "Ready, in time or too late",
            A_MINUTE,
            "within_goal and beyond_goal: [flow] freshness_goal after the end of the call. Well: within_goal only.",
        )
        .of("60 * sum by (freshness) (rate(nice_knovvu_calls_ready_total{T}[R]))", "{{freshness}}")
        .stacked(),
        Panel::graph(
            "Budget of failures left",
            SHARE,
            "Of the failures that are allowed within 30 days, what is left: one call in a hundred may be late, one in a \
             thousand a dead letter. Well: above 0. Below, as far as -100 %: the promise is not kept. No calls: no line.",
        )
        .of(FRESH.left("30d"), "freshness")
        .of(COMPLETE_BY_DAY.left("30d"), "completeness")
        .from(-1),
    ]);
    panels
}

fn faults() -> Vec<Panel> {
    vec![
        nice::systems().wide(8),
        Panel::number(
            "Since its group was read",
            SECONDS,
            "Well: minutes. Above an hour calls of new agents are left out. Alert AgentsNotSynced.",
        )
        .of("time() - max(nice_knovvu_agents_last_sync_timestamp_seconds{T} > 0)", "")
        .low_is_well(1_800.0, 3_600.0)
        .wide(8),
        Panel::number("Agents", COUNT, "Of the group, active and not. Well: as many as there are in NICE.")
            .of("max by (state) (nice_knovvu_agents{T})", "{{state}}")
            .wide(8),
        Panel::graph(
            "NICE's answers",
            A_SECOND,
            "ok; not_there: a recording that is not there yet; refused: key or role (401, 403); throttled (429); failed: \
             no answer, or one that tells of a fault. Well: ok and not_there only.",
        )
        .of("sum by (answer) (rate(nice_knovvu_nice_answers_total{T}[R]))", "{{answer}}")
        .wide(12),
        Panel::graph(
            "Found by nights and backfills",
            COUNT,
            "In the last 24 hours, by what became of the calls. Well: missing is 0 for reconciliation.",
        )
        .of(
            "sum by (kind, verdict) (increase(nice_knovvu_replay_conversations_total{T}[1d])) > 0 or none(kind)",
            "{{kind}} {{verdict}}",
        )
        .wide(12),
    ]
}

fn quota() -> Vec<Panel> {
    vec![
        Panel::graph(
            "Used and allowed",
            COUNT,
            "Requests of the present window, the limit of the settings, and the limit now. Well: limit now is the limit.",
        )
        .of("sum by (family) (max by (tenant, family, class) (nice_knovvu_nice_quota_used_requests{T}))", "{{family}} used")
        .of("max by (family) (nice_knovvu_nice_quota_limit_now_requests{T})", "{{family}} limit now")
        .of("max by (family) (nice_knovvu_nice_quota_limit_requests{T})", "{{family}} limit"),
        Panel::graph(
            "Used, by class",
            COUNT,
            "live: calls that just ended; retry: looked at again; agents; reconciliation; backfill; unconfirmed: what \
             only the webhook told.",
        )
        .of("max by (family, class) (nice_knovvu_nice_quota_used_requests{T}) > 0 or none(family)", "{{family}} {{class}}")
        .stacked(),
        Panel::graph(
            "Requests that wait, by class",
            COUNT,
            "For room in the budget, in all processes. Well: no live ones. Alert NiceQuotaLiveWaits.",
        )
        .of(
            "sum by (family, class) (nice_knovvu_nice_quota_waiting_requests{T}) or none(family)",
            "{{family}} {{class}}",
        ),
    ]
}
