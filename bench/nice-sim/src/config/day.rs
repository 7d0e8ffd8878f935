//! How many calls there are, and of which kinds.

use std::time::Duration;

/// The calls that the schedule begins with. More can be added while the simulation runs.
#[derive(Clone, Debug)]
pub struct DayConfig {
    /// How many calls with an agent. Default 0: an empty day.
    pub calls: usize,
    /// Hang-ups are spread evenly over this time from the start. Default 60 s.
    pub over: Duration,
    /// And over this time before the start: history that is there already. Default 0.
    pub history: Duration,
    /// Share of calls that are transferred once or twice. Default 0.15.
    pub transfer_share: f64,
    /// Share of calls whose recording never exists. Default 0.05.
    pub never_recorded_share: f64,
    /// Share of legs taken by an agent outside the wanted group. Default 0.3.
    pub out_of_group_share: f64,
    /// Share of calls that the agent placed. Default 0.25.
    pub outbound_share: f64,
    /// Contacts nobody answered, on top of the calls and as a share of them. Default 0.05.
    pub abandoned_share: f64,
    /// Chats, on top of the calls and as a share of them. Default 0.05.
    pub chat_share: f64,
    /// Share of calls that were elevated between channels: more than one interaction. Default 0.05.
    pub elevated_share: f64,
    /// How long agents talk, in seconds of the call's own story: nobody waits for it. Default 20 to 600.
    pub talk_secs: (u64, u64),
    /// How large recordings are. Default 40 KiB to 400 KiB.
    pub recording_size: RecordingSize,
}

impl Default for DayConfig {
    fn default() -> Self {
        Self {
            calls: 0,
            over: Duration::from_secs(60),
            history: Duration::ZERO,
            transfer_share: 0.15,
            never_recorded_share: 0.05,
            out_of_group_share: 0.3,
            outbound_share: 0.25,
            abandoned_share: 0.05,
            chat_share: 0.05,
            elevated_share: 0.05,
            talk_secs: (20, 600),
            recording_size: RecordingSize::Between(40 * 1024, 400 * 1024),
        }
    }
}

/// How large a segment's recording is; the file of a transferred call is as large as its segments together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordingSize {
    /// Exactly this many bytes.
    Fixed(u64),
    /// Evenly drawn, both ends included.
    Between(u64, u64),
}
