//! SIGTERM or Ctrl-C → one token; a second signal ends the process at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

/// Sets the token at the first signal. A second one exits without waiting: what is unfinished comes again.
pub(crate) fn on_signal() -> std::io::Result<(CancellationToken, AbortOnDropHandle<()>)> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopping = CancellationToken::new();
    let token = stopping.clone();
    let waiting = runtime::task::spawn("signals", async move {
        let code = tokio::select! {
            biased;
            _ = terminate.recv() => 143,
            _ = interrupt.recv() => 130,
        };
        info!("draining: sources end, stages finish what they hold");
        token.cancel();
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(code);
    });
    Ok((stopping, waiting))
}
