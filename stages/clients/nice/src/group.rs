//! The group's agents, read whole.
//!
//! A short list would make agents look as if they had left, and their calls would no longer be imported. So every page
//! must be readable, and every row have its id. Agents whom NICE hides, and those whom it counts and does not name, are
//! told: whoever asks decides whether such a reading is believed.

use std::collections::{BTreeMap, HashSet};

use reqwest::Url;

use super::api::Api;
use super::discovery::Discovery;
use super::endpoint::Endpoint;
use super::http::{ApiAnswer, parse};
use super::wire::ShapeError;
use super::wire::directory::{self, DirectoryPage, NamedGroup};
use super::{GroupAgent, GroupKind, GroupReading, GroupSelector, NiceClient, NiceError, net};

/// The largest page that NICE's lists of groups and agents are reported to give.
const TOP: usize = 100;

/// No group has so many agents.
const MAX_ROWS: usize = 10_000;

/// Enough for [`MAX_ROWS`] in pages of ten.
const MAX_PAGES: usize = 1_000;

/// Reads a page of a list.
type PageParser<T> = fn(&[u8]) -> Result<DirectoryPage<T>, ShapeError>;

impl NiceClient {
    /// Reads the whole group, or fails: a short list is never an answer.
    pub async fn group_agents(&self) -> Result<GroupReading, NiceError> {
        let (settings, selector) = (&self.inner.settings, &self.inner.settings.group);
        let root = self.inner.discovery.acd(&self.inner.api).await?;
        let root = net::below(&root, &["inContactAPI", "services", &settings.api_version]);
        let (groups, group_id) = match selector.kind {
            GroupKind::AcdGroup => {
                let url = net::below(&root, &["groups"]);
                let groups = self.whole_list(Endpoint::Groups, url.clone(), directory::groups, group_key).await?;
                (url, groups.choose(Endpoint::Groups, selector)?)
            }
            GroupKind::Team => {
                let url = net::below(&root, &["teams"]);
                let teams = self.whole_list(Endpoint::Teams, url.clone(), directory::teams, group_key).await?;
                (url, teams.choose(Endpoint::Teams, selector)?)
            }
        };
        let mut url = net::below(&groups, &[&group_id, "agents"]);
        let agents = match selector.kind {
            GroupKind::AcdGroup => {
                url.query_pairs_mut().append_pair("assigned", "true");
                self.whole_list(Endpoint::GroupAgents, url, directory::group_agents, agent_key).await?
            }
            GroupKind::Team => self.whole_list(Endpoint::TeamAgents, url, directory::team_agents, agent_key).await?,
        };
        let Whole { rows, hidden, missing, no_content } = agents;
        Ok(GroupReading { agents: rows, group_id, hidden, missing, no_content })
    }
}

fn group_key(group: &NamedGroup) -> u64 {
    // Digits by its grammar, at most 19 of them.
    group.id.parse().unwrap_or(u64::MAX)
}

fn agent_key(agent: &GroupAgent) -> u64 {
    agent.agent_id.get()
}

/// The id of the one group that is meant: by id, else by exact name, else by name in any case.
fn choose(groups: &[NamedGroup], selector: &GroupSelector) -> Result<String, NiceError> {
    let wanted = selector.id_or_name.trim();
    let by_id = |group: &&NamedGroup| group.id == wanted;
    let by_name = |group: &&NamedGroup| group.name.trim() == wanted;
    let by_similar_name = |group: &&NamedGroup| group.name.trim().to_lowercase() == wanted.to_lowercase();
    let found = |fits: &dyn Fn(&&NamedGroup) -> bool| groups.iter().filter(fits).collect::<Vec<_>>();
    let candidates = [found(&by_id), found(&by_name), found(&by_similar_name)];
    match candidates.into_iter().find(|found| !found.is_empty()).as_deref() {
        Some([group]) => Ok(group.id.clone()),
        Some(several) => Err(NiceError::permanent(format!(
            "the group is ambiguous: {} groups have that name, name it by its id",
            several.len()
        ))),
        None => Err(NiceError::permanent(format!("NICE has no such group among the {} we may see", groups.len()))),
    }
}

/// A list as far as NICE gives it.
struct Whole<T> {
    rows: Vec<T>,
    /// Rows that NICE says it hides.
    hidden: u64,
    /// Rows that it counts and does not give.
    missing: u64,
    /// The very first answer was 204.
    no_content: bool,
}

impl Whole<NamedGroup> {
    /// The id of the one group that is meant. One that is not there may be among those that NICE counts and does not
    /// give.
    fn choose(&self, endpoint: Endpoint, selector: &GroupSelector) -> Result<String, NiceError> {
        match choose(&self.rows, selector) {
            Err(_) if self.missing > 0 => Err(inconsistent(endpoint, "it has fewer rows than it says")),
            chosen => chosen,
        }
    }
}

impl NiceClient {
    /// Reads every page of a list; each row once, in the order of their keys.
    async fn whole_list<T: Send + 'static>(
        &self,
        endpoint: Endpoint,
        url: Url,
        reader: PageParser<T>,
        key: fn(&T) -> u64,
    ) -> Result<Whole<T>, NiceError> {
        let mut rows = BTreeMap::new();
        let mut hidden = 0;
        let mut visited = HashSet::new();
        let mut total = None;
        let mut page_url = paged(&url, 0);
        for _ in 0..MAX_PAGES {
            let page = self.list_page(endpoint, &page_url, reader).await?;
            let no_content = page.is_none() && visited.is_empty();
            let page = page.unwrap_or_else(DirectoryPage::empty);
            visited.insert(page_url);
            let before = rows.len();
            hidden = page.hidden.max(hidden);
            let ended = page.rows.is_empty();
            rows.extend(page.rows.into_iter().map(|row| (key(&row), row)));
            let seen = rows.len();
            if seen > MAX_ROWS {
                return Err(inconsistent(endpoint, "it has more rows than any group"));
            }
            total = page.total.or(total);
            let next = page.next.and_then(|link| follow(&self.inner.api, &self.inner.discovery, endpoint, &link));
            // The total is a hint: a page with rows is followed by another question.
            if ended || seen == before {
                // Hidden ones may be counted.
                let missing = total.unwrap_or_default().saturating_sub(hidden.saturating_add(seen as u64));
                // Whoever ignores `skip` does not tell the rest.
                let has_more = missing > 0 || (total.is_none() && next.is_some());
                if has_more && !ended {
                    return Err(inconsistent(endpoint, "its pages repeat themselves"));
                }
                return Ok(Whole { rows: rows.into_values().collect(), hidden, missing, no_content });
            }
            page_url = next.filter(|next| !visited.contains(next)).unwrap_or_else(|| paged(&url, seen));
        }
        Err(inconsistent(endpoint, "it has no last page"))
    }

    /// A page; none for a 204.
    async fn list_page<T: Send + 'static>(
        &self,
        endpoint: Endpoint,
        url: &Url,
        reader: PageParser<T>,
    ) -> Result<Option<DirectoryPage<T>>, NiceError> {
        match self.get(endpoint, url).await? {
            ApiAnswer::Body(body) => parse(endpoint, body, reader).await.map(Some),
            ApiAnswer::Nothing => Ok(None),
            ApiAnswer::NotFound => Err(NiceError::permanent(format!("{}: NICE has no such list", endpoint.name()))),
        }
    }
}

/// NICE's link to the next page, if it leads back to where the page came from.
pub(super) fn follow(api: &Api, discovery: &Discovery, endpoint: Endpoint, link: &str) -> Option<Url> {
    let url = Url::parse(link).ok().filter(|url| discovery.is_ours(url));
    if url.is_none() {
        tracing::warn!(endpoint = endpoint.name(), "a link to the next page leads to another host, it is not followed");
        api.http.refused_next(endpoint);
    }
    url
}

fn paged(url: &Url, skip: usize) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut().append_pair("top", &TOP.to_string()).append_pair("skip", &skip.to_string());
    url
}

fn inconsistent(endpoint: Endpoint, why: &str) -> NiceError {
    NiceError::transient(format!("{}: NICE's list cannot be whole: {why}", endpoint.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose_among(groups: &[(&str, &str)], wanted: &str) -> Result<String, NiceError> {
        let groups =
            groups.iter().map(|(id, name)| NamedGroup { id: (*id).into(), name: (*name).into() }).collect::<Vec<_>>();
        choose(&groups, &GroupSelector { kind: GroupKind::AcdGroup, id_or_name: wanted.into() })
    }

    #[test]
    fn a_group_is_named_by_id_or_name() {
        let groups = [("1", "Knovvu"), ("2", "knovvu"), ("3", "1"), ("4", "Sales"), ("5", "Sales"), ("6", " Support ")];
        assert_eq!(choose_among(&groups, "1"), Ok("1".into()), "an id wins over a name");
        assert_eq!(choose_among(&groups, "Knovvu"), Ok("1".into()));
        assert_eq!(choose_among(&groups, "knovvu"), Ok("2".into()));
        assert_eq!(choose_among(&groups, "support"), Ok("6".into()));
        assert!(matches!(choose_among(&groups, "KNOVVU"), Err(NiceError::Permanent { .. })), "ambiguous");
        assert!(matches!(choose_among(&groups, "Sales"), Err(NiceError::Permanent { .. })), "ambiguous");
        assert!(matches!(choose_among(&groups, "None"), Err(NiceError::Permanent { .. })));
        assert!(matches!(choose_among(&[], "Knovvu"), Err(NiceError::Permanent { .. })));
    }
}
