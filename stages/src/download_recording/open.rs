//! Opens recordings that NICE names, all of them or those that there are.

use std::sync::Arc;

use flow::StageError;
use futures::future::BoxFuture;
use nice::{MediaLink, NiceClient, NiceError};

use super::named::{NamedRecording, PlaybackOf, StartMark, by_start};
use crate::items::PlacedMedia;

/// Not "no recording" either: NICE names some, and has processed none of them.
pub(super) const NO_LINK: &str = "the recording has no link yet";

/// Some are there, and are worth waiting with.
pub(super) const SOME_WITHOUT_LINK: &str = "some of the recordings have no link yet";

/// What NICE gives of a conversation.
pub(super) struct OpenedMedia {
    /// Opened and checked.
    pub(super) media: Vec<PlacedMedia>,
    /// Named, and not given.
    pub(super) missing: u32,
    /// Why one of them was not, although it had a link.
    pub(super) gone: Option<NiceError>,
}

impl OpenedMedia {
    /// The same, or why nothing could be opened.
    pub(super) fn something(mut self) -> Result<Self, StageError> {
        match self.gone.take_if(|_| self.media.is_empty()) {
            Some(NiceError::NotReady { .. }) => Err(StageError::NotReady { reason: NO_LINK }),
            Some(error) => Err(error.into()),
            None => Ok(self),
        }
    }
}

/// Opens what is named; without `takes_parts` all or none.
pub(super) async fn open_named(
    nice: &NiceClient,
    named: Vec<NamedRecording>,
    takes_parts: bool,
) -> Result<OpenedMedia, StageError> {
    let with_link = named.iter().filter(|recording| recording.link.is_some()).count();
    if with_link == 0 && !named.is_empty() {
        return Err(StageError::NotReady { reason: NO_LINK });
    }
    // Before anything is opened: most who wait for the rest would open and drop the others at every look.
    if with_link < named.len() && !takes_parts {
        return Err(StageError::NotReady { reason: SOME_WITHOUT_LINK });
    }
    open(nice, named, takes_parts).await
}

/// Opens what has a link. With `takes_parts` what cannot be had counts as missing.
async fn open(nice: &NiceClient, named: Vec<NamedRecording>, takes_parts: bool) -> Result<OpenedMedia, StageError> {
    let mut found = OpenedMedia { media: Vec::with_capacity(named.len()), missing: 0, gone: None };
    for NamedRecording { position, of, mark, rank, source, link } in named {
        let Some(link) = link else {
            found.missing += 1;
            continue;
        };
        match nice.open_media(&link, Some(refresher(nice, &of, mark, rank))).await {
            Ok(media) => found.media.push(PlacedMedia { position, source, media }),
            Err(NiceError::NotReady { .. }) if !takes_parts => return Err(StageError::NotReady { reason: NO_LINK }),
            Err(error @ (NiceError::NotReady { .. } | NiceError::LinkExpired)) if takes_parts => {
                found.missing += 1;
                found.gone = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// Asks for a fresh link when the one in use has expired.
fn refresher(nice: &NiceClient, of: &PlaybackOf, mark: StartMark, rank: usize) -> Arc<Refresher> {
    let (nice, of) = (nice.clone(), of.clone());
    Arc::new(move || {
        let (nice, of) = (nice.clone(), of.clone());
        Box::pin(async move {
            let playback = of.fetch(&nice).await?;
            // By its start: others may have come before it since. By its rank where no start is as it was.
            let mut named: Vec<_> = by_start(playback).collect();
            let same = named.iter().position(|(other, _)| *other == mark).unwrap_or(rank);
            let link = (same < named.len()).then(|| named.swap_remove(same).1.link).flatten();
            link.ok_or(NiceError::NotReady { what: "the recording has no link any more" })
        })
    })
}

type Refresher = dyn Fn() -> BoxFuture<'static, Result<MediaLink, NiceError>> + Send + Sync;
