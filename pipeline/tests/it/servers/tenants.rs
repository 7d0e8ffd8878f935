//! One consumer serves many tenants: trouble with one does not hold up the others, and ends when its cause does.

use nice_sim::{CallSpec, Faults};

use super::bed::{Role, ServerBed, terminate};
use super::calls::{place, small};
use super::oracle;
use super::poison::{message, publish};
use crate::harness::Daemon;

/// Tenants `acme` and `beta`, a producer for each.
async fn two_tenants(seed: u64, bed: &mut ServerBed) -> [Daemon; 2] {
    bed.add_tenant("beta", small(seed, 0)).await;
    let beta = [("NICE_KNOVVU_TENANT__ID", "beta")];
    let mut producers = [bed.producer(), bed.start(Role::Producer, "producer-beta", &beta)];
    for producer in &mut producers {
        producer.ready().await;
    }
    producers
}

/// Calls of tenant `beta` that the consumer is told of, whether or not a producer finds them.
async fn tell_of_beta(bed: &ServerBed, count: usize) -> Vec<i64> {
    let beta = bed.sim_of("beta");
    let agents = beta.group(1001);
    let call = |number: usize| beta.add_call(CallSpec::new(agents[number % agents.len()])).contact_ids[0];
    let ids: Vec<_> = (0..count).map(call).collect();
    let bodies: Vec<_> = ids.iter().map(|id| message("beta", id.to_string()).to_string().into_bytes()).collect();
    publish(bed, "live", &bodies).await;
    ids
}

/// Calls of tenant `acme` become final while those of `beta` cannot.
async fn acme_goes_on(bed: &ServerBed, stuck: &[i64], from: usize) {
    place(bed.sim(), from..from + 20);
    let took = bed.finished("acme").await;
    let left = bed.unfinished("beta").await;
    assert!(stuck.iter().all(|id| left.contains(id)), "{stuck:?}, of which {left:?} are left");
    println!("acme's calls took {:.1} s meanwhile", took.as_secs_f64());
}

/// How many seconds nine of ten of acme's calls took at most from their end to ready, but for these.
async fn most_took(bed: &ServerBed, but: &[i64]) -> f64 {
    let query = "select external_id::bigint, extract(epoch from completed_at - ended_at)::float8 from conversations
                 where tenant_id = 'acme' and completed_at is not null order by 2";
    let rows = bed.sql().await.query(query, &[]).await.unwrap();
    let took: Vec<f64> = rows.iter().filter(|row| !but.contains(&row.get(0))).map(|row| row.get(1)).collect();
    assert!(took.len() >= 10, "{took:?}");
    took[took.len() * 9 / 10]
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_of_one_tenant_do_not_hold_up_the_other_and_are_mended_without_a_restart() {
    let mut bed = ServerBed::new(small(1401, 0)).await;
    bed.set("CONSUMER__CONCURRENCY", "4");
    let producers = two_tenants(1402, &mut bed).await;
    bed.set_nice("beta", &[("access_key_secret", "not-the-secret")]);
    let mut consumer = bed.consumer("consumer");
    consumer.ready().await;
    let stuck = tell_of_beta(&bed, 20).await;
    acme_goes_on(&bed, &stuck, 0).await;

    bed.set_nice("beta", &[]);
    println!("beta's calls took {:.1} s after the settings were mended", bed.quiet().await.as_secs_f64());

    terminate(producers.into_iter().chain([consumer]));
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_one_tenants_nice_does_not_hold_up_the_other() {
    let mut bed = ServerBed::new(small(1403, 0)).await;
    bed.set("CONSUMER__CONCURRENCY", "4");
    let producers = two_tenants(1404, &mut bed).await;
    let mut consumer = bed.consumer("consumer");
    consumer.ready().await;
    bed.sim_of("beta").set_faults(Faults { server_errors: 1.0, ..Faults::none() });
    let stuck = tell_of_beta(&bed, 20).await;
    acme_goes_on(&bed, &stuck, 0).await;
    bed.sim_of("beta").set_faults(Faults::none());
    println!("beta's calls took {:.1} s after the outage", bed.quiet().await.as_secs_f64());
    terminate(producers.into_iter().chain([consumer]));
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_budget_is_used_up_does_not_hold_up_the_other() {
    let mut bed = ServerBed::new(small(1405, 0)).await;
    bed.set("CONSUMER__CONCURRENCY", "4");
    bed.set("LIMITS__MEDIA_PLAYBACK", "10/5s");
    let producers = two_tenants(1406, &mut bed).await;
    let mut consumer = bed.consumer("consumer");
    consumer.ready().await;
    tell_of_beta(&bed, 60).await;
    let agent = bed.sim().group(1001)[0];
    bed.sim().add_call(CallSpec::new(agent));
    bed.finished("acme").await;
    assert!(!bed.unfinished("beta").await.is_empty(), "60 calls with 10 requests in 5 s");
    bed.quiet().await;

    terminate(producers.into_iter().chain([consumer]));
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_media_host_that_stalls_after_the_headers_holds_up_its_own_tenant_only() {
    let mut bed = ServerBed::new(small(1407, 0)).await;
    bed.set("CONSUMER__CONCURRENCY", "4");
    let producers = two_tenants(1408, &mut bed).await;
    let mut consumer = bed.consumer("consumer");
    consumer.ready().await;
    place(bed.sim(), 0..20);
    bed.finished("acme").await;
    let before = bed.final_ids("acme").await;
    let alone = most_took(&bed, &[]).await;

    bed.sim_of("beta").set_faults(Faults { media_stall: 1.0, ..Faults::none() });
    let stuck = tell_of_beta(&bed, 60).await;
    place(bed.sim(), 20..40);
    bed.finished("acme").await;
    let beside = most_took(&bed, &before).await;
    let left = bed.unfinished("beta").await;
    assert!(stuck.iter().all(|id| left.contains(id)), "{stuck:?}, of which {left:?} are left");
    println!("nine of ten of acme's calls took {alone:.1} s alone, {beside:.1} s beside");
    // A stalled body is given up after half a minute. Sixty of them on four places, one after the other, would take
    // seven minutes, and acme's calls behind them as long. A slow machine takes some seconds to send the sixty back.
    assert!(beside <= alone + 60.0, "{alone:.1} s alone, {beside:.1} s beside a tenant that stalls");

    bed.sim_of("beta").set_faults(Faults::none());
    println!("beta's calls took {:.1} s after that", bed.quiet().await.as_secs_f64());
    terminate(producers.into_iter().chain([consumer]));
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}
