//! The operator page: who may read and act, without a browser; and all views in a real one.

use std::path::PathBuf;

use jiff::{Span, Timestamp, tz::TimeZone};
use nice_sim::{CallSpec, Faults};

use crate::harness::{Bed, Daemon, hurried, tail};

mod access;
mod axe;
mod browser;
mod chain;
mod pictures;
mod views;

/// The token that may read.
const READ: &str = "canary-read-token";

/// The token that may act.
const ACT: &str = "canary-act-token";

/// A daemon whose page asks for tokens, with a day of calls and two dead letters.
struct PageBed {
    bed: Bed,
    daemon: Daemon,
    /// A conversation that is ready.
    ready: i64,
    /// Two that were set aside.
    dead: [i64; 2],
}

impl PageBed {
    async fn new(seed: u64, calls: usize) -> Self {
        let mut bed = Bed::new(hurried(seed, calls)).await;
        bed.set("AGENTS__SYNC_INTERVAL", "1h");
        bed.set("ADMIN__READ_TOKEN", READ);
        bed.set("ADMIN__ACT_TOKEN", ACT);
        bed.set("ADMIN__PLAYBACK", "true");
        bed.set("PROOF__DIR", bed.dir.path().join("proof").display().to_string());
        let agents = bed.sim.group(1001);
        let call = |index: usize| bed.sim.add_call(CallSpec::new(agents[index])).contact_ids[0];
        let mut daemon = bed.start();
        daemon.ready().await;
        let ready = call(0);
        bed.ready(&mut daemon, &[ready]).await;
        bed.settled(&mut daemon).await;
        bed.sim.set_faults(Faults { foreign_media_link: 1.0, ..Faults::none() });
        let dead = [call(1), call(2)];
        let states = bed.final_states(&mut daemon, &dead).await;
        assert_eq!(states, ["dead_letter", "dead_letter"], "{}", tail(&bed.log()));
        bed.sim.set_faults(Faults::none());
        Self { bed, daemon, ready, dead }
    }

    /// Signs the three days before today.
    fn sign_days(&self) {
        let key = self.bed.dir.path().join("proof.key").display().to_string();
        let made = self.bed.ended(&["report", "keygen", &key, "--json"]);
        assert_eq!(made.code, Some(0), "{made:?}");
        let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
        let (from, to) = (today.saturating_sub(Span::new().days(3)).to_string(), today.to_string());
        let signed = self.bed.ended(&["report", "--from", &from, "--to", &to, "--sign", "--key-file", &key]);
        // Whether calls are missing is not asked here.
        assert!(matches!(signed.code, Some(0 | 4)), "{signed:?}");
    }

    /// An address of the page.
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.daemon.admin_address())
    }
}

/// Where the tests leave pictures and what they install.
fn target() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../page")
}
