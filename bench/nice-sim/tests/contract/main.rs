//! The contract of the simulator, point by point, asked over HTTP by a client that knows nothing of its inside.

mod client;

mod discovery_and_tokens;

mod directory;

mod paging;

mod life;

mod playback;

mod media;

mod extraction;

mod faults;

mod webhook;

mod sessions;

mod seeds;

mod in_memory;

mod misbehaviour;
