//! NICE and its quota: who is refused, who is throttled, and which work uses the budget.

use super::grafana::{A_SECOND, COUNT, Dashboard, GREEN, ORANGE, Panel, RED, SECONDS, SHARE};
use super::overview::WORKS;

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        file: "nice",
        title: "nice-knovvu: NICE and quota",
        about: "What NICE answers, for whom it fails, and which class of work uses its quota.",
        rows: vec![("For whom NICE fails", tenants()), ("Requests", requests()), ("Quota", quota())],
    }
}

fn tenants() -> Vec<Panel> {
    vec![
        Panel::table(
            "Systems of tenants that fail",
            "A tenant's nice or media_host that fails for many of its calls; they wait, and none is given up. Well: \
             none. Alert TenantSystemFails.",
        )
        .of("min by (tenant, system) (nice_knovvu_tenant_system_up{T}) == 0", "")
        .wide(8),
        Panel::graph(
            "Refused or throttled, by tenant",
            A_SECOND,
            "refused: NICE does not take the key or the role (401, 403); throttled: it has had enough (429). Well: \
             none. Alerts NiceRefusesUs and NiceQuotaShared.",
        )
        .of(
            "sum by (tenant, answer) (rate(nice_knovvu_nice_answers_total{T,answer=~\"refused|throttled\"}[R]))",
            "{{tenant}} {{answer}}",
        ),
        Panel::graph(
            "Fails, by tenant",
            SHARE,
            "Requests to NICE that had no answer, or one that tells of a fault. Well: below 1 %. Above one half: alert \
             NiceFails.",
        )
        .of(
            "sum by (tenant) (rate(nice_knovvu_nice_answers_total{T,answer=\"failed\"}[10m])) \
             / (sum by (tenant) (rate(nice_knovvu_nice_answers_total{T}[10m])) > 0) or none(tenant)",
            "{{tenant}}",
        )
        .low_is_well(0.1, 0.5),
    ]
}

fn requests() -> Vec<Panel> {
    vec![
        Panel::graph(
            "Requests, by endpoint and answer",
            A_SECOND,
            "A status, or why there was none (timeout, connect). 404 at contact_playback is a recording that is not \
             there yet. Well: 200, 204 and such 404 only.",
        )
        .of(
            "sum by (endpoint, status) (rate(nice_knovvu_nice_requests_total{I}[R])) > 0 or none(endpoint)",
            "{{endpoint}} {{status}}",
        ),
        Panel::graph(
            "Time to answer, 95 of 100",
            SECONDS,
            "Until NICE's answer was whole. Well: below a second or two. session_events waits for events and is slow \
             by intention.",
        )
        .of(
            "histogram_quantile(0.95, sum by (le, endpoint) \
             (rate(nice_knovvu_nice_request_duration_seconds_bucket{I}[R]))) > 0",
            "{{endpoint}}",
        ),
        Panel::graph(
            "Tokens asked for",
            A_SECOND,
            "Well: one an hour for each tenant and process. More: NICE refuses tokens that are still valid.",
        )
        .of("sum by (instance) (rate(nice_knovvu_nice_token_renewals_total{I}[R]))", "{{instance}}"),
    ]
}

fn quota() -> Vec<Panel> {
    vec![
        Panel::number(
            "Pace",
            COUNT,
            "Why the limit is where it is. paused: NICE refused a request, nothing is sent; recovering: the limit grows \
             back. Well: full pace. Alert NiceQuotaLowered.",
        )
        .of(
            "max by (tenant, family) (nice_knovvu_nice_quota_pace{T,pace=\"recovering\"}) \
             + 2 * max by (tenant, family) (nice_knovvu_nice_quota_pace{T,pace=\"paused\"})",
            "{{tenant}} {{family}}",
        )
        .words(&[("0", "full pace", GREEN), ("1", "recovering", ORANGE), ("2", "paused", RED)])
        .wide(8),
        Panel::number(
            "At full pace again in",
            SECONDS,
            "If NICE refuses nothing more. Well: 0 s. Alert NiceQuotaLowered.",
        )
        .of("max by (family) (nice_knovvu_nice_quota_full_pace_in_seconds{T})", "{{family}}")
        .low_is_well(1.0, 900.0)
        .wide(8),
        Panel::number(
            "Requests that wait",
            COUNT,
            "For room in the budget, in all processes, by API family. Well: 0; a backfill may wait.",
        )
        .of("sum by (family) (nice_knovvu_nice_quota_waiting_requests{T}) or none(family)", "{{family}}")
        .none_is_well(ORANGE)
        .wide(8),
        Panel::graph(
            "Used and allowed",
            COUNT,
            "Requests of the present window, the limit of the settings, and the limit now, which is lower after a 429. \
             Well: limit now is the limit.",
        )
        .of("sum by (tenant, family) (max by (tenant, family, class) (nice_knovvu_nice_quota_used_requests{T}))", "{{tenant}} {{family}} used")
        .of("max by (tenant, family) (nice_knovvu_nice_quota_limit_now_requests{T})", "{{tenant}} {{family}} limit now")
        .of("max by (tenant, family) (nice_knovvu_nice_quota_limit_requests{T})", "{{tenant}} {{family}} limit"),
        Panel::graph(
            "Used, by class",
            COUNT,
            "live: calls that just ended; retry: looked at again; agents; reconciliation; backfill; unconfirmed: what \
             only the webhook told. Well: live has what it needs.",
        )
        .of(
            "sum by (family, class) (max by (tenant, family, class) (nice_knovvu_nice_quota_used_requests{T})) > 0 \
             or none(family)",
            "{{family}} {{class}}",
        )
        .stacked(),
        Panel::graph(
            "Waiting, by class",
            COUNT,
            "Requests that stand in line at a time. Well: no live ones. Alert NiceQuotaLiveWaits.",
        )
        .of("sum by (family, class) (rate(nice_knovvu_nice_quota_wait_seconds_total{I}[R])) > 0 or none(family)", "{{family}} {{class}}"),
        Panel::graph("Admitted, by class", A_SECOND, "Requests that the budget let through. Well: follows the calls.")
            .of(
                "sum by (family, class) (rate(nice_knovvu_nice_quota_requests_total{I}[R])) > 0 or none(family)",
                "{{family}} {{class}}",
            )
            .wide(12),
        Panel::graph(
            "Admitted by us, refused by NICE",
            A_SECOND,
            "Requests within [limits] that NICE answered with 429. Well: none: else other software uses the quota. \
             Alert NiceQuotaShared.",
        )
        .of("sum by (family) (rate(nice_knovvu_nice_quota_refusals_total{I}[R]))", "{{family}}")
        .wide(12),
    ]
}

/// Of one tenant, for its own dashboard.
pub(crate) fn systems() -> Panel {
    Panel::number(
        "Its systems",
        COUNT,
        "The tenant's NICE, and the host of its recordings. Well: both answer. If not: calls wait, and none is given \
         up. Alert TenantSystemFails.",
    )
    .of("min by (system) (nice_knovvu_tenant_system_up{T})", "{{system}}")
    .words(WORKS)
}
