//! The chain of signed days on the page: that it holds, and where it is broken.

use jiff::civil::Date;
use serde_json::Value;

use super::{PageBed, READ, axe, browser::Browser};

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_of_signed_days_is_shown_and_a_break_is_said_with_what_to_do() {
    let mut page = PageBed::new(1503, 20).await;
    page.sign_days();
    let (_, chain) = page.daemon.get("/api/v1/proof").await.expect("the daemon answers");
    let chain: Value = serde_json::from_str(&chain).unwrap();
    let days = chain["days"].as_array().unwrap();
    assert_eq!(days.len(), 3, "{chain:#}");
    assert!(days[0]["previous"].is_null() && days[2]["previous"] == days[1]["hash"], "{chain:#}");
    assert!(days.iter().all(|day| day["linked"] == true && day["public_key"].is_string()), "{chain:#}");
    let newest: Date = days[2]["day"].as_str().unwrap().parse().unwrap();

    let browser = Browser::start(1280, 900).await;
    browser.sign_in(&page.url(""), READ).await;
    let month = page.url(&format!("/completeness?month={}", newest.strftime("%Y-%m")));
    browser.open(&month).await;
    browser.says("The chain holds: 3 signed days").await;
    assert_ne!(browser.run("return document.querySelectorAll('.calendar .signed').length").await, 0);
    for field in ["hash", "previous", "public_key"] {
        let whole = days[2][field].as_str().unwrap();
        let shown = format!("return document.querySelector('[title=\"{whole}\"]').textContent");
        assert_eq!(browser.run(&shown).await, format!("{}…", &whole[..12]), "{field}");
    }

    // A day is changed afterwards.
    let file = format!("{}.json", days[1]["day"].as_str().unwrap());
    let path = page.bed.dir.path().join("proof/acme").join(&file);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"ended\":", "\"ended\":1")).unwrap();
    let script = axe::script();
    for (language, broken) in [("en", "is broken at"), ("tr", "dosyasında kopuk")] {
        browser.open(&page.url(&format!("/preferences?language={language}"))).await;
        browser.open(&month).await;
        let said = browser.run("return document.querySelector('main [role=alert]').innerText").await;
        let said = said.as_str().unwrap();
        assert!(said.contains(broken) && said.contains(&file) && said.contains("report verify"), "{said}");
        assert_ne!(browser.run("return document.querySelectorAll('.calendar .broken').length").await, 0);
        let found = axe::violations(&browser, &script).await;
        assert!(found.is_empty(), "{language}: {found:?}");
    }
    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "{complaints:?}");
    assert!(page.daemon.terminate().success());
}
