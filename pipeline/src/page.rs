//! The operator page: whether calls are lost or late, whose fault it is, and what to do.
//!
//! The server renders everything; a little script of our own keeps parts live, and no request leaves the host. What a
//! view shows it asks the operations for, with the requests that commands send, so that page, commands and API say the
//! same. Whoever acts is written down first.
//!
//! - `context`: what is shared by all requests; `visit`: who asks, in which language; `acting`: a form that acts.
//! - `layout`, `parts`, `pictures`, the panels: what views are made of; `texts`: every word, in English and Turkish;
//!   `reasons`: what stages and commands say, for readers of Turkish.
//! - `assets`, and `runbooks`: files in the executable.
//! - The views, one file each: `now`, `search` and `conversation`, `dead_letters`, `completeness` with `signed_days`,
//!   `backfills`, `quota`, `settings`, `acts` (the audit); and `entrance`, where a token is shown.

use axum::{
    Router, middleware,
    routing::{get, post},
};

mod acting;
mod acts;
mod assets;
mod backfills;
mod completeness;
mod context;
mod conversation;
mod dead_letters;
mod entrance;
mod flow_picture;
mod guard;
mod layout;
mod live;
mod now;
mod parts;
mod pictures;
mod playback;
mod quota;
mod reasons;
mod runbooks;
mod samples;
mod search;
mod services_panel;
mod settings;
mod signed_days;
mod systems_panel;
mod texts;
mod visit;
mod words;

pub(crate) use context::PageContext;

/// Every address of the page.
pub(crate) fn router(context: PageContext) -> Router {
    Router::new()
        .route("/", get(now::show))
        .route("/live/now", get(live::now))
        .route("/conversations", get(search::show))
        .route("/conversations/{id}", get(conversation::show))
        .route("/conversations/{id}/number", post(conversation::show_number))
        .route("/conversations/{id}/recordings/{position}", get(playback::play))
        .route("/conversations/{id}/listen", post(conversation::listen))
        .route("/dead-letters", get(dead_letters::show))
        .route("/dead-letters/groups/{group}", get(dead_letters::show_group))
        .route("/dead-letters/groups/{group}/{act}", get(dead_letters::confirm_group).post(dead_letters::act_on_group))
        .route("/dead-letters/{id}", get(dead_letters::show_one))
        .route("/dead-letters/{id}/{act}", get(dead_letters::confirm_one).post(dead_letters::act_on_one))
        .route("/completeness", get(completeness::show))
        .route("/completeness/{day}", get(completeness::show_day).post(completeness::report_day))
        .route("/backfills", get(backfills::show).post(backfills::begin))
        .route("/backfills/{id}/{change}", post(backfills::change))
        .route("/quota", get(quota::show))
        .route("/settings", get(settings::show))
        .route("/audit", get(acts::show))
        .route("/login", get(entrance::show).post(entrance::sign_in))
        .route("/logout", post(entrance::sign_out))
        .route("/preferences", get(entrance::prefer))
        .layer(middleware::from_fn_with_state(context.clone(), guard::guarded))
        .route("/assets/{name}", get(assets::serve))
        .merge(runbooks::router())
        .with_state(context)
}
