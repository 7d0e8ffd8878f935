//! The signing of a day is killed before and after its file gets its place; the chain is whole, and no day is twice.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use nice_sim::CallSpec;
use runtime::crash::PROOF_POINTS;
use serde_json::Value;

use crate::SIGKILL;
use crate::harness::{Bed, executable, tail};
use crate::history::{history, number, until, untold};

/// Calls that ended 30 hours ago, of which the daemon is not told.
fn lost(bed: &Bed, count: usize) {
    for agent in bed.sim.group(1001).iter().cycle().take(count) {
        bed.sim.add_call(CallSpec::new(*agent).hang_up_in(SignedDuration::from_hours(-30)));
    }
}

/// A key to sign with.
fn keygen(bed: &Bed) -> String {
    let key = bed.dir.path().join("proof.key").display().to_string();
    assert_eq!(bed.ended(&["report", "keygen", &key]).code, Some(0));
    key
}

/// The days of a folder whose check finds nothing wrong, each with its hash.
fn verified(folder: &Path) -> Vec<(String, String)> {
    let output = executable(&["report", "verify", &folder.display().to_string(), "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let chains: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |day: &Value, field: &str| day[field].as_str().unwrap().to_owned();
    chains[0]["days"].as_array().unwrap().iter().map(|day| (text(day, "day"), text(day, "hash"))).collect()
}

/// All files of a folder.
fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signing_that_is_killed_is_gone_on_with_and_signs_no_day_twice() {
    for point in PROOF_POINTS {
        let mut bed = untold(history(642, 0)).await;
        lost(&bed, 3);
        bed.set("PROOF__DIR", bed.dir.path().join("proof").display().to_string());
        let folder = bed.dir.path().join("proof/acme");
        let mut daemon = bed.start();
        daemon.ready().await;
        let key = keygen(&bed);
        let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
        let (from, to) = (today.saturating_sub(jiff::Span::new().days(3)).to_string(), today.to_string());
        let sign = ["report", "--from", &from, "--to", &to, "--sign", "--key-file", &key];
        // NICE lists a call a moment after it has ended.
        until(&bed, async || {
            let report = bed.json(&["report", "--from", &from, "--to", &to, "--json"]);
            (number(&report, "/total/missing") == 3).then_some(()).ok_or_else(|| format!("{report:#}"))
        })
        .await;

        // At the second of three days.
        let killed = bed.command(&sign).env("NICE_KNOVVU_CRASH_AT", format!("{point}:2")).output().unwrap();
        assert_eq!(killed.status.signal(), Some(SIGKILL), "{point}: {killed:?}");
        let before = verified(&folder);
        let is_there = usize::from(*point == "signed_day_moved");
        assert_eq!((before.len(), files(&folder)), (1 + is_there, 2), "{point}");

        let again = bed.ended(&sign);
        assert_eq!(again.code, Some(4), "{point}: three calls are missing: {again:?}");
        let after = verified(&folder);
        assert_eq!((after.len(), files(&folder)), (3, 3), "{point}: nothing is left over");
        assert_eq!(after[..before.len()], before, "{point}: what was signed is not changed");
        assert!(daemon.terminate().success(), "{}", tail(&bed.log()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_is_killed_while_it_signs_signs_the_day_after_its_next_start() {
    for point in PROOF_POINTS {
        let mut bed = untold(history(643, 0)).await;
        lost(&bed, 2);
        let mut daemon = bed.start();
        daemon.ready().await;
        assert_eq!(bed.json(&["reconcile", "--json"])["state"], "done");
        assert!(daemon.terminate().success(), "{}", tail(&bed.log()));

        let key = keygen(&bed);
        bed.set("PROOF__NIGHTLY", "true");
        bed.set("PROOF__DIR", bed.dir.path().join("proof").display().to_string());
        bed.set("PROOF__KEY_FILE", &key);
        let folder = bed.dir.path().join("proof/acme");
        let mut daemon = bed.start_with(&[("NICE_KNOVVU_CRASH_AT", point)]);
        let status = daemon.wait();
        assert_eq!(status.signal(), Some(SIGKILL), "{point}: {status}\n{}", tail(&bed.log()));
        assert_eq!(files(&folder), 1, "{point}");

        let mut daemon = bed.start();
        match *point {
            "signed_day_moved" => daemon.ready().await,
            _ => bed.says("the day is signed").await,
        }
        assert!(daemon.terminate().success(), "{}", tail(&bed.log()));
        assert_eq!((verified(&folder).len(), files(&folder)), (1, 1), "{point}");
    }
}
