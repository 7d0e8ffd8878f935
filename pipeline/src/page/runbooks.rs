//! The runbooks of the alerts, as they stand in `dashboards/runbooks/`: in the executable, so that the link of an alert
//! leads to the page of its own version, also where nothing else of the project is. They hold nothing of the
//! installation, so nobody is asked for a token.

use axum::{
    Router,
    extract::Path,
    http::{StatusCode, header},
    middleware,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use maud::{DOCTYPE, html};

use super::assets::STYLE_ADDRESS;
use super::guard;

macro_rules! runbooks {
    ($($name:literal,)+) => {
        [$(($name, include_str!(concat!("../../../dashboards/runbooks/", $name, ".md")))),+]
    };
}

/// By the names of their alerts.
const RUNBOOKS: [(&str, &str); 40] = runbooks![
    "AgentsNotSynced",
    "AnalysisFailed",
    "BrokerConnectionBreaks",
    "BrokerTakesNothing",
    "CallsStandStill",
    "CallsWait",
    "CallsWereMissing",
    "CompletenessBurnsFast",
    "CompletenessBurnsSlowly",
    "DeadLetters",
    "DeadLettersDropped",
    "DeadLettersUnattended",
    "DiskFills",
    "FilesRunOut",
    "FreshnessBurnsFast",
    "FreshnessBurnsSlowly",
    "GroupHeld",
    "MemoryHigh",
    "NiceFails",
    "NiceListDoubtful",
    "NiceQuotaLiveWaits",
    "NiceQuotaLowered",
    "NiceQuotaShared",
    "NiceQuotaUsedUp",
    "NiceRefusesUs",
    "NobodyAsksNice",
    "NobodyProduces",
    "OutsideSystemAway",
    "PollBehind",
    "ProcessDown",
    "ProcessRestartsOften",
    "ReconciliationOverdue",
    "RecordingDiffers",
    "RecordingStoreFails",
    "StageFails",
    "StateGrows",
    "StateSetAside",
    "TenantSystemFails",
    "UnconfirmedDropped",
    "WebhookRefused",
];

/// Their addresses.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/runbooks", get(list))
        .route("/runbooks/{name}", get(show))
        .layer(middleware::from_fn(guard::bounded))
}

/// What there is.
async fn list() -> Html<String> {
    let list = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Runbooks · nice-knovvu" }
                link rel="stylesheet" href=(*STYLE_ADDRESS);
            }
            body {
                main {
                    h1 { "Runbooks" }
                    ul { @for (name, _) in RUNBOOKS { li { a href=(format!("/runbooks/{name}.md")) { (name) } } } }
                }
            }
        }
    };
    Html(list.into_string())
}

/// One of them, as text.
async fn show(Path(name): Path<String>) -> Response {
    let name = name.strip_suffix(".md").unwrap_or(&name);
    let Some((_, text)) = RUNBOOKS.iter().find(|(known, _)| *known == name) else {
        return (StatusCode::NOT_FOUND, "there is no such runbook\n").into_response();
    };
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], *text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_runbook_is_there_by_its_alert() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards/runbooks");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<_> = files.collect();
        files.sort();
        assert_eq!(RUNBOOKS.map(|(name, _)| format!("{name}.md")).to_vec(), files);
        let Html(list) = list().await;
        for name in files {
            assert!(list.contains(&format!("\"/runbooks/{name}\"")), "{name} is not listed");
            let shown = show(Path(name.clone())).await;
            assert_eq!(shown.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
            let text = axum::body::to_bytes(shown.into_body(), usize::MAX).await.unwrap();
            assert!(text.starts_with(format!("# {}\n", name.trim_end_matches(".md")).as_bytes()), "{name}");
        }
        assert_eq!(show(Path("../alerts".to_owned())).await.status(), StatusCode::NOT_FOUND);
    }
}
