//! Whose the messages are that came on a channel.

use std::sync::Arc;

use lapin::Channel;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{ANSWER_TIMEOUT, amqp::OK};

/// The right to answer for what came on a channel.
#[derive(Clone)]
pub(super) struct Ownership {
    channel: Channel,
    lost: CancellationToken,
    /// Tells one from another: the numbers of channels come again.
    id: Arc<()>,
}

impl Ownership {
    /// Of what comes on this channel.
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel, lost: CancellationToken::new(), id: Arc::new(()) }
    }

    /// The channel.
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether the broker still awaits our answer. It hands a message out again once the channel is gone, with the
    /// connection or because the broker waited too long, or once it has cancelled the consumer.
    pub(super) fn is_ours(&self) -> bool {
        self.channel.status().connected() && !self.lost.is_cancelled()
    }

    /// Cancelled once it ends by the broker's doing.
    pub(super) fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Whether both are of one session.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.id, &other.id)
    }

    /// Ends it, and the channel: the broker may have taken back only a part, and hands out the rest when that is gone.
    pub(super) async fn lose(&self) {
        self.lost.cancel();
        if self.channel.status().connected()
            && let Ok(Err(error)) = timeout(ANSWER_TIMEOUT, self.channel.close(OK, "cancelled".into())).await
        {
            debug!(%error, "channel not closed");
        }
    }
}
