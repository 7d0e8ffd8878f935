//! Signed days: made by a command or by the producer at night, and checked without settings.

use std::path::Path;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use nice_sim::CallSpec;
use serde_json::Value;

use crate::harness::{Bed, Ended, executable};
use crate::history::{history, number, until, untold};

/// Runs `report verify` where nothing else is: no settings, no daemon.
fn verify(folder: &Path, arguments: &[&str]) -> Ended {
    let nowhere = tempfile::tempdir().unwrap();
    let folder = folder.display().to_string();
    let mut command = executable(&[&["report", "verify", &folder][..], arguments].concat());
    command.current_dir(nowhere.path());
    Ended::of(command)
}

/// Calls of the day before yesterday or of yesterday, of which the daemon is not told.
fn lost(bed: &Bed, count: usize) {
    let agents = bed.sim.group(1001);
    for agent in agents.iter().cycle().take(count) {
        bed.sim.add_call(CallSpec::new(*agent).hang_up_in(SignedDuration::from_hours(-30)));
    }
}

/// A file of the bed's directory.
fn path(bed: &Bed, name: &str) -> String {
    bed.dir.path().join(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn days_with_exceptions_are_signed_and_checked_without_settings() {
    let mut bed = untold(history(640, 0)).await;
    lost(&bed, 3);
    let folder = bed.dir.path().join("proof");
    bed.set("PROOF__DIR", folder.display().to_string());
    let mut daemon = bed.start();
    daemon.ready().await;

    let key = path(&bed, "proof.key");
    let made = bed.ended(&["report", "keygen", &key]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let public = made.stdout.trim().strip_prefix("public key: ").expect("it is printed").to_owned();

    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let from = today.saturating_sub(jiff::Span::new().days(3));
    let (from, to) = (from.to_string(), today.to_string());
    let sign = ["report", "--from", &from, "--to", &to, "--sign", "--key-file", &key];
    // NICE lists a call a moment after it has ended.
    let signed = until(&bed, async || {
        let report = bed.json(&["report", "--from", &from, "--to", &to, "--json"]);
        (number(&report, "/total/missing") == 3).then_some(()).ok_or_else(|| format!("{report:#}"))?;
        Ok(bed.ended(&sign))
    })
    .await;
    assert_eq!((signed.code, signed.stderr.as_str()), (Some(4), "nice-knovvu: 3 calls are missing\n"), "{signed:?}");
    let acme = folder.join("acme");
    let files = std::fs::read_dir(&acme).unwrap().count();
    assert_eq!(files, 3, "{signed:?}");
    // Again: nothing is written.
    assert_eq!(bed.ended(&sign).code, Some(4));

    let (_, page) = daemon.get("/api/v1/proof").await.expect("the daemon answers");
    let chain: Value = serde_json::from_str(&page).unwrap();
    assert_eq!(
        (number(&chain, "/days/0/missing") + number(&chain, "/days/1/missing") + number(&chain, "/days/2/missing")),
        3,
        "{chain:#}"
    );
    assert!(chain["fault"].is_null() && chain["days"][2]["verified"] == true, "{chain:#}");
    let newest = chain["days"][2]["hash"].as_str().unwrap().to_owned();
    assert!(daemon.terminate().success());

    for folder in [&acme, &folder] {
        let right = verify(folder, &["--public-key", &public, "--expect", &newest]);
        assert_eq!(right.code, Some(0), "{right:?}");
        assert!(
            right.stdout.contains(&newest) && right.stdout.lines().all(|line| line.chars().count() <= 80),
            "{right:?}"
        );
    }
    let foreign = verify(&acme, &["--public-key", &newest]);
    assert_eq!(foreign.code, Some(1), "{foreign:?}");
    let first = acme.join(format!("{from}.json"));
    let text = std::fs::read_to_string(&first).unwrap();
    std::fs::write(&first, text.replace("\"ended\":", "\"ended\":1")).unwrap();
    let tampered = verify(&acme, &["--json"]);
    assert_eq!(tampered.code, Some(1), "{tampered:?}");
    let told: Value = serde_json::from_str(&tampered.stdout).unwrap();
    assert_eq!(told[0]["fault"]["file"], format!("{from}.json"), "{told:#}");
    assert!(tampered.stderr.contains(&format!("{from}.json")), "{tampered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_producer_signs_yesterday_once_the_comparison_of_the_day_is_done() {
    let mut bed = untold(history(641, 0)).await;
    lost(&bed, 2);
    let mut daemon = bed.start();
    daemon.ready().await;
    assert_eq!(bed.json(&["reconcile", "--json"])["state"], "done");
    assert!(daemon.terminate().success());

    let key = path(&bed, "proof.key");
    assert_eq!(bed.ended(&["report", "keygen", &key]).code, Some(0));
    bed.set("PROOF__NIGHTLY", "true");
    let refused = bed.ended(&["run"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("[proof] dir: missing"), "{refused:?}");
    let folder = bed.dir.path().join("proof");
    bed.set("PROOF__DIR", folder.display().to_string());
    bed.set("PROOF__KEY_FILE", &key);
    let mut daemon = bed.start();
    bed.says("the day is signed").await;
    let secret = std::fs::read_to_string(&key).unwrap();
    assert!(!bed.logged().contains(secret.trim()), "the key is logged");
    assert!(daemon.terminate().success());
    let right = verify(&folder, &[]);
    assert_eq!(right.code, Some(0), "{right:?}");
    assert!(right.stdout.contains("acme: 1 signed days"), "{right:?}");
}
