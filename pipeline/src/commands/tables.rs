//! Results as tables for a person.

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use jiff::Timestamp;
use model::DeadLetter;

use super::verify::Verification;
use crate::operations::{Budget, Erasable, Erased, Rechecked, Status, Trace};

pub(super) mod agents;
pub(super) mod replays;

/// An empty table with a header.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(header);
    table
}

/// Sets the columns from `from` on to the right, as numbers are read.
pub(crate) fn numbers(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

pub(super) fn dead_letters(letters: &[DeadLetter]) -> String {
    let mut table = table(&["id", "conversation", "stage", "reason", "at", "goes back"]);
    for letter in letters {
        table.add_row([
            letter.id.to_string(),
            letter.conversation_id.clone().unwrap_or_else(|| "-".to_owned()),
            letter.stage.clone(),
            letter.reason.clone(),
            time(Some(letter.at)),
            time(letter.replay_at),
        ]);
    }
    table.to_string()
}

pub(super) fn verification(found: &Verification) -> String {
    let mut lines = vec![format!(
        "{} conversations, {} recordings, {} bytes read back: {} differ",
        found.conversations, found.recordings, found.bytes, found.differing
    )];
    if found.elsewhere > 0 {
        lines.push(format!("{} lie in another store than the settings name, and were not looked at", found.elsewhere));
    }
    if !found.differences.is_empty() {
        let mut table = table(&["conversation", "position", "problem", "bytes", "found", "object"]);
        for difference in &found.differences {
            table.add_row([
                difference.conversation_id.to_string(),
                difference.position.to_string(),
                difference.problem.as_str().to_owned(),
                difference.size_bytes.to_string(),
                difference.found_size_bytes.map_or_else(|| "-".to_owned(), |size| size.to_string()),
                difference.object_key.clone(),
            ]);
        }
        lines.push(table.to_string());
    }
    lines.join("\n")
}

pub(super) fn dead_letter(letter: &DeadLetter) -> String {
    let message = serde_json::to_string_pretty(&letter.message).unwrap_or_default();
    format!("{}\n\nmessage:\n{message}", dead_letters(std::slice::from_ref(letter)))
}

pub(super) fn status(status: &Status) -> String {
    let mut lines = Vec::new();
    let daemon = match status.started_at {
        Some(since) => format!("running since {}", time(Some(since))),
        None => "not running here".to_owned(),
    };
    let tenant = status.tenant.as_ref().map_or("every", |tenant| tenant.as_str());
    lines.push(format!("tenant          {tenant} (nice-knovvu {}, {daemon})", status.version));
    let backlog = status.backlog;
    lines.push(format!(
        "backlog         {} live, {} backfill, {} delayed, {} in flight{}",
        backlog.live,
        backlog.backfill,
        backlog.delayed,
        backlog.in_flight,
        status.webhook_inbox.map(|count| format!("; webhook inbox {count}")).unwrap_or_default()
    ));
    lines.push(format!("lag             {:.1} s (oldest call in flight)", status.freshness_lag_seconds));
    let counts = status.conversations;
    lines.push(format!(
        "conversations   {} ready, {} no recording, {} under way, {} dead letters",
        counts.ready, counts.no_recording, counts.metadata_saved, counts.dead_letters
    ));
    lines.push(format!(
        "agents          {} active, {} inactive; last read {}",
        status.agents_active,
        status.agents_inactive,
        time(status.agents_last_sync)
    ));
    if status.agents_missing > 0 {
        lines.push(format!("agents counted  {} more than NICE names", status.agents_missing));
    }
    if let Some(held) = &status.agents_held {
        lines.push(format!("agents held     {}", agents::held(held)));
    }
    lines.push(format!("found up to     {} (each poll looks back to there)", time(status.poll_watermark)));
    for budget in &status.rate_budget {
        lines.push(format!("rate budget     {}", budget_line(budget)));
    }
    lines.push(format!("reconciliation  last run {}", time(status.last_reconciliation)));
    if let (Some(ids), Some(bytes)) = (status.processed_ids, status.state_disk_bytes) {
        let mib = bytes as f64 / f64::from(1 << 20);
        lines.push(format!("local state     {ids} processed ids, {mib:.1} MiB on disk"));
    }
    if status.started_at.is_none() {
        return lines.join("\n");
    }
    let mut stages =
        table(&["stage", "in flight", "ok", "done", "not ready", "busy", "retry", "dead letter", "handed back"]);
    for stage in &status.stages {
        let count = |outcome: &str| stage.outcomes.get(outcome).copied().unwrap_or_default().to_string();
        let mut row = vec![stage.stage.clone(), stage.in_flight.to_string()];
        row.extend(["ok", "done", "not_ready", "busy", "retry", "dead_letter", "handed_back"].map(count));
        stages.add_row(row);
    }
    numbers(&mut stages, 1);
    format!("{}\n{stages}", lines.join("\n"))
}

pub(super) fn rechecked(rechecked: &Rechecked) -> String {
    match rechecked.enqueued {
        0 => "nothing lacks recordings: there is nothing to ask NICE for".to_owned(),
        calls => format!("{calls} calls are on the queue; a consumer asks NICE for what they lack"),
    }
}

pub(super) fn erasable(erasable: &Erasable) -> String {
    let Erasable { conversation_id, known, recordings, dead_letters, hops, messages, .. } = erasable;
    if !known {
        return format!("nothing is known of conversation {conversation_id}: `erase` would ask for --yes-unknown");
    }
    let mut lines = vec![format!("nothing is erased; of conversation {conversation_id} there is")];
    if erasable.erased {
        lines.push("  tombstone    it was erased before, and stays away".to_owned());
    }
    lines.push(match erasable.state {
        Some(state) => format!("  catalog      its row ({})", state.as_str()),
        None => "  catalog      no row".to_owned(),
    });
    lines.push(format!("               {dead_letters} dead letters, {hops} lines of its timeline"));
    lines.push(format!("  recordings   {} as its row says", recordings.len()));
    lines.extend(recordings.iter().map(|key| format!("               {key}")));
    lines.push(match messages {
        Some(messages) => format!("  queue        {messages} messages"),
        None => "  queue        the broker does not tell".to_owned(),
    });
    lines.join("\n")
}

pub(super) fn erased(erased: &Erased) -> String {
    let Erased { conversation_id, tombstone, found, objects, dead_letters, hops, messages, set_aside, .. } = erased;
    let mut lines = vec![match found {
        _ if !erased.recordings_looked_for => format!(
            "conversation {conversation_id} stays away, but its recordings were not looked for (tombstone {tombstone})"
        ),
        true => format!("conversation {conversation_id} is erased (tombstone {tombstone})"),
        false => format!(
            "nothing was found of conversation {conversation_id}; should it turn up, it is dropped (tombstone {tombstone})"
        ),
    }];
    lines.push(match erased.recordings_looked_for {
        true => format!("  recordings   {objects} files or versions of objects deleted"),
        false => format!(
            "  recordings   none were looked for, since no row says where they would lie; delete what is in the bucket \
             under TENANT/YEAR/MONTH/DAY/{conversation_id}/"
        ),
    });
    lines.push(format!("  catalog      its row, {dead_letters} dead letters, {hops} lines of its timeline deleted"));
    lines.push(match messages {
        Some(messages) => format!("  queue        {messages} messages deleted"),
        None => "  queue        a message that is still on the broker holds the id, and is dropped when it comes up"
            .to_owned(),
    });
    lines.push("  pending      consumers look again for 6 hours, and keep its id until then".to_owned());
    for store in set_aside {
        lines.push(format!("  set aside    {} may still hold it: delete it", store.display()));
    }
    lines.push("  yours        backups, and what the analysis has copied".to_owned());
    lines.join("\n")
}

/// How a rate budget stands, in a line.
fn budget_line(budget: &Budget) -> String {
    let Budget { family, available, limit, limit_now, used, .. } = budget;
    let mut line = format!("{family}: {available} requests available now, {used} of {limit_now} used");
    if !budget.by_class.is_empty() {
        let classes: Vec<_> = budget.by_class.iter().map(|(class, used)| format!("{class} {used}")).collect();
        line.push_str(&format!(" ({})", classes.join(", ")));
    }
    if limit_now < limit {
        line.push_str(&format!(", lowered from {limit}"));
    }
    format!("{line}; {}", budget.why)
}

pub(super) fn trace(trace: &Trace) -> String {
    let mut lines = vec![format!("conversation {}: {}", trace.conversation_id, trace.state)];
    if let Some(row) = &trace.conversation {
        for field in ["master_external_id", "agent_external_id", "direction", "started_at", "ended_at", "source"] {
            lines.push(format!("  {field:<19} {}", plain(&row[field])));
        }
        for recording in row["recordings"].as_array().into_iter().flatten() {
            lines.push(format!(
                "  recording {}         {} bytes, sha256 {}, {}",
                plain(&recording["position"]),
                plain(&recording["size_bytes"]),
                plain(&recording["sha256"]),
                plain(&recording["object_key"])
            ));
        }
        if row["recordings_missing"].as_u64().is_some_and(|missing| missing > 0) {
            let missing = plain(&row["recordings_missing"]);
            lines.push(format!("  {:<19} {missing} that NICE names; `recheck` asks for them", "recordings missing"));
        }
        lines.push(format!("  {:<19} {}", "in analysis queue", plain(&row["enqueued_at"])));
    }
    if let Some(letter) = &trace.dead_letter {
        lines.push(format!("  dead letter {}: {} ({})", letter.id, letter.reason, letter.stage));
    }
    let mut hops = table(&["at", "stage", "outcome", "attempt", "took", "detail"]);
    for hop in &trace.hops {
        hops.add_row([
            time(Some(hop.at)),
            hop.stage.clone(),
            hop.outcome.clone(),
            hop.attempt.to_string(),
            format!("{} ms", hop.took_millis),
            hop.detail.clone().unwrap_or_default(),
        ]);
    }
    lines.push(hops.to_string());
    lines.join("\n")
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{time:.3}"))
}
