//! Groups, teams and their agents. Nothing is skipped here: a row that cannot be read makes the page unreadable,
//! since an agent who is overlooked is an agent whose calls are lost.

use model::AgentId;
use serde_json::value::RawValue;

use super::ShapeError;
use super::contact::{ListPage, id};
use super::lenient;
use super::lenient::Object;
use crate::GroupAgent;

/// Twice what a page of such lists has been seen to hold, when paging is ignored.
const MAX_ROWS: usize = 20_000;

/// A group or a team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedGroup {
    /// The ACD id: digits, so that it may stand in a path.
    pub id: String,
    /// The name; empty where NICE sent none.
    pub name: String,
}

/// A page, and how many rows NICE tells of besides without naming them.
#[derive(Debug)]
pub struct DirectoryPage<T> {
    /// The rows in NICE's order.
    pub rows: Vec<T>,
    /// How many rows all pages have together.
    pub total: Option<u64>,
    /// NICE's link to the next page.
    pub next: Option<String>,
    /// Agents that the service user may not see.
    pub hidden: u64,
}

impl<T> DirectoryPage<T> {
    /// What "204, nothing" stands for.
    pub fn empty() -> Self {
        Self { rows: Vec::new(), total: None, next: None, hidden: 0 }
    }

    fn around(object: &Object<'_>, rows: Vec<T>) -> Self {
        let ListPage { rows, total, next, .. } = ListPage::around(object, rows);
        Self { rows, total, next, hidden: hidden(object) }
    }
}

fn hidden(object: &Object<'_>) -> u64 {
    object.integer(&["hiddenAgents"]).and_then(|hidden| hidden.try_into().ok()).unwrap_or_default()
}

/// Reads a page of groups.
pub fn groups(body: &[u8]) -> Result<DirectoryPage<NamedGroup>, ShapeError> {
    named(body, "groups", "groupId", "groupName")
}

/// Reads a page of teams.
pub fn teams(body: &[u8]) -> Result<DirectoryPage<NamedGroup>, ShapeError> {
    named(body, "teams", "teamId", "teamName")
}

fn named(body: &[u8], list: &str, id_name: &str, name: &str) -> Result<DirectoryPage<NamedGroup>, ShapeError> {
    let text = lenient::document(body)?;
    let object = Object::parse(&text)?;
    let rows = match object.items(&[list], MAX_ROWS)? {
        Some(rows) => rows,
        None if object.integer(&["totalRecords"]) == Some(0) => Vec::new(),
        None => return Err(ShapeError::Shape("no list of groups")),
    };
    let rows = rows.into_iter().map(|raw| {
        let row = Object::of(raw).ok_or(ShapeError::Shape("a group is no object"))?;
        // A group's id has the grammar of an agent's.
        let id = id::<AgentId>(&row, &[id_name])?.ok_or(ShapeError::Grammar("a group id"))?;
        Ok(NamedGroup { id: id.to_string(), name: row.text(&[name]).unwrap_or_default() })
    });
    let rows = rows.collect::<Result<Vec<_>, ShapeError>>()?;
    Ok(DirectoryPage::around(&object, rows))
}

/// Reads a page of the agents of a group.
pub fn group_agents(body: &[u8]) -> Result<DirectoryPage<GroupAgent>, ShapeError> {
    let text = lenient::document(body)?;
    let object = Object::parse(&text)?;
    let rows = match object.items(&["agents"], MAX_ROWS)? {
        Some(rows) => rows,
        None if object.integer(&["totalRecords"]) == Some(0) => Vec::new(),
        None => return Err(ShapeError::Shape("no list of agents")),
    };
    let rows = rows.into_iter().map(agent).collect::<Result<Vec<_>, _>>()?;
    Ok(DirectoryPage::around(&object, rows))
}

/// Reads a page of the agents of a team, which are nested under it.
pub fn team_agents(body: &[u8]) -> Result<DirectoryPage<GroupAgent>, ShapeError> {
    let text = lenient::document(body)?;
    let object = Object::parse(&text)?;
    let Some(teams) = object.items(&["teams"], MAX_ROWS)? else {
        return group_agents(body);
    };
    let team_count = teams.len() as u64;
    let (mut rows, mut hidden_in_teams) = (Vec::new(), 0_u64);
    for raw in teams {
        let team = Object::of(raw).ok_or(ShapeError::Shape("a team is no object"))?;
        for raw in team.items(&["agents"], MAX_ROWS - rows.len())?.unwrap_or_default() {
            rows.push(agent(raw)?);
        }
        hidden_in_teams = hidden_in_teams.saturating_add(hidden(&team));
    }
    let mut page = DirectoryPage::around(&object, rows);
    // Whether it counts teams or agents is not documented: the number of teams says nothing of the agents.
    page.total = page.total.filter(|total| *total != team_count);
    page.hidden = page.hidden.max(hidden_in_teams);
    Ok(page)
}

fn agent(raw: &RawValue) -> Result<GroupAgent, ShapeError> {
    let object = Object::of(raw).ok_or(ShapeError::Shape("an agent is no object"))?;
    // A newer spelling has the ACD id under `agentNo`, and the UserHub id under `agentId`.
    let number = match id::<AgentId>(&object, &["agentNo"])? {
        Some(number) => Some(number),
        None => id(&object, &["agentId"])?,
    };
    let named_by_number = object.value(&["agentNo"]).is_some();
    let user_id =
        object.text(&["userId", "userUuid"]).or_else(|| object.text(&["agentId"]).filter(|_| named_by_number));
    Ok(GroupAgent {
        agent_id: number.ok_or(ShapeError::Grammar("an agent id"))?,
        user_id,
        user_name: object.text(&["userName"]).unwrap_or_default(),
        first_name: object.text(&["firstName"]).unwrap_or_default(),
        last_name: object.text(&["lastName"]).unwrap_or_default(),
        is_active: object.flag(&["isActive"]).unwrap_or(true),
    })
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
