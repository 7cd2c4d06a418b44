//! When to stop: SIGTERM and SIGINT ask for it.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled at the first SIGTERM or SIGINT. A second one ends the process at once, for whoever
/// cannot wait for the drain.
///
/// Must be called within a tokio runtime. Where signals cannot be caught, that is logged and the token never fires.
pub fn on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    match (terminate, interrupt) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            let token = token.clone();
            tokio::spawn(async move {
                for second in [false, true] {
                    let name = tokio::select! {
                        _ = terminate.recv() => "SIGTERM",
                        _ = interrupt.recv() => "SIGINT",
                    };
                    if second {
                        tracing::warn!(signal = name, "second signal, ending without a drain");
                        std::process::exit(130);
                    }
                    tracing::info!(signal = name, "stopping");
                    token.cancel();
                }
            });
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(error = %error, "signals cannot be caught, only SIGKILL ends this process");
        }
    }
    token
}
