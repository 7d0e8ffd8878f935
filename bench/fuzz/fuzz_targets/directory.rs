//! Groups, teams and agents.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nice::wire::directory::{group_agents, groups, team_agents, teams};

fuzz_target!(|body: &[u8]| {
    for page in [groups(body), teams(body)].into_iter().flatten() {
        for group in page.rows {
            assert!((1..=19).contains(&group.id.len()) && group.id.bytes().all(|byte| byte.is_ascii_digit()));
        }
    }
    for page in [group_agents(body), team_agents(body)].into_iter().flatten() {
        for agent in page.rows {
            assert!(agent.agent_id.get() > 0);
            assert!(!agent.user_name.contains('\0') && agent.user_name.len() <= 4096);
        }
    }
});
