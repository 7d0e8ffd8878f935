//! The rules all lists of the ACD share: `top`, `skip`, `orderBy`, `fields`, `_links`, and 204 for nothing.

use std::borrow::Borrow;

use serde_json::{Value, json};

use crate::{
    api::{
        ask::Ask,
        reply::{Answer, object},
    },
    chance::{derive, word},
    clock,
    service::Service,
};

pub(crate) use crate::memory::rows::Row;

/// The part of a list that a request asks for.
#[derive(Debug)]
pub(crate) struct Page {
    top: usize,
    skip: usize,
    order: Option<(String, bool)>,
    fields: Option<Vec<String>>,
}

/// One page of a list and what its envelope says.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) rows: Vec<Row>,
    envelope: Row,
}

impl Page {
    /// Reads the request's parameters.
    pub(crate) fn read(ask: &Ask, default: usize, max: usize) -> Result<Self, Answer> {
        let number = |name: &str, otherwise: usize| match ask.param(name) {
            None | Some("") => Ok(otherwise),
            Some(text) => text.parse().map_err(|_| bad_request(&format!("{name} is not a number"))),
        };
        let top: usize = number("top", default)?;
        if top == 0 {
            return Err(bad_request("top is not positive"));
        }
        let order = match ask.param("orderBy").map(str::trim).filter(|order| !order.is_empty()) {
            None => None,
            Some(order) => match order.split_whitespace().collect::<Vec<_>>()[..] {
                [field] => Some((field.to_owned(), false)),
                [field, way] if way.eq_ignore_ascii_case("asc") => Some((field.to_owned(), false)),
                [field, way] if way.eq_ignore_ascii_case("desc") => Some((field.to_owned(), true)),
                _ => return Err(bad_request("orderBy is a field and asc or desc")),
            },
        };
        let fields = ask.param("fields").filter(|fields| !fields.trim().is_empty());
        let fields = fields.map(|fields| fields.split(',').map(|field| field.trim().to_lowercase()).collect());
        Ok(Self { top: top.min(max), skip: number("skip", 0)?, order, fields })
    }

    /// Whether the request asks for an order.
    pub(crate) fn sorted(&self) -> bool {
        self.order.is_some()
    }

    /// The largest number of rows of this page.
    pub(crate) fn top(&self) -> usize {
        self.top
    }

    /// Puts the rows into the order asked for.
    pub(crate) fn sort<R: Borrow<Row>>(&self, rows: &mut [R]) -> Result<(), Answer> {
        let Some((field, descending)) = &self.order else { return Ok(()) };
        let Some(first) = rows.first() else { return Ok(()) };
        let key = first.borrow().keys().find(|key| key.eq_ignore_ascii_case(field)).cloned();
        let key = key.ok_or_else(|| bad_request("orderBy names no field"))?;
        rows.sort_by_cached_key(|row| sort_key(row.borrow().get(&key)));
        if *descending {
            rows.reverse();
        }
        Ok(())
    }

    /// Cuts the page out of all rows. `None` is a 204: past the end, or nothing found.
    pub(crate) fn cut<R: Borrow<Row>>(self, service: &Service, ask: &Ask, rows: Vec<R>) -> Option<Listed> {
        let total = rows.len();
        let from = self.shifted_skip(service, ask);
        let page = rows.iter().skip(from).take(self.top);
        let asked = self.asked(rows.first());
        let mut rows: Vec<Row> = page.map(|row| project(row.borrow(), asked.as_deref())).collect();
        if rows.is_empty() {
            return None;
        }
        // What is missing of a page that is cut short comes under the next link, or is left to be asked for.
        let cut = service.faults.strikes_with("short page", &[true, false], |faults| faults.short_pages);
        let cut = cut.filter(|_| rows.len() > 1);
        if cut.is_some() {
            rows.truncate(rows.len() / 2);
        }
        let last = (from + rows.len() >= total && cut.is_none()) || cut == Some(&false);
        let step = if cut.is_some() { rows.len() } else { self.top };
        let next = (!last).then(|| self.next(service, ask, step));
        let previous = (self.skip > 0).then(|| link(&service.base, ask, self.skip.saturating_sub(self.top), self.top));
        let lies = [0, total / 2, total + 1, total * 3 + 7];
        let told = *service.faults.strikes_with("total lies", &lies, |faults| faults.total_lies).unwrap_or(&total);
        let envelope = object(json!({
            "businessUnitId": service.config.tenant.business_unit_id,
            "lastPollTime": clock::write(service.now() + service.faults.current().clock_skew_millis),
            "totalRecords": told,
            "_links": { "self": link(&service.base, ask, self.skip, self.top), "next": next, "previous": previous },
        }));
        Some(Listed { rows, envelope })
    }

    /// The link to what follows, so many rows behind the beginning of this page, or one that leads astray.
    fn next(&self, service: &Service, ask: &Ask, step: usize) -> String {
        const FAR: usize = 1_000_000_000;
        let faults = &service.faults;
        let to = |skip: usize| link(&service.base, ask, skip, self.top);
        if faults.strikes("foreign next link", |faults| faults.foreign_next_link) {
            return link(&service.trap, ask, self.skip + step, self.top);
        }
        if faults.strikes("next repeats", |faults| faults.next_repeats) {
            return to(self.skip);
        }
        match faults.strikes_with("next nowhere", &[true, false], |faults| faults.next_nowhere) {
            Some(true) => to(FAR),
            Some(false) => to(self.skip + step).replacen('?', "/nowhere?", 1),
            None => to(self.skip + step),
        }
    }

    /// Where the page begins, if rows came or went in front of it since the first page. The same for all later pages
    /// of one listing, as it would be.
    fn shifted_skip(&self, service: &Service, ask: &Ask) -> usize {
        let faults = service.faults.current();
        if self.skip == 0 {
            return 0;
        }
        let listing = (ask.query.iter())
            .filter(|(key, _)| !key.eq_ignore_ascii_case("skip"))
            .fold(ask.path.clone(), |listing, (key, value)| format!("{listing}&{key}={value}"));
        let draw = |kind: &str| word(derive(faults.seed, &listing), derive(0, kind)) as f64 / u64::MAX as f64;
        if draw("inserted") < faults.rows_inserted {
            self.skip - 1
        } else if draw("vanished") < faults.rows_vanish {
            self.skip + 1
        } else {
            self.skip
        }
    }

    /// The fields asked for, as the rows of the list write them; all rows of a list have the same.
    fn asked<R: Borrow<Row>>(&self, first: Option<&R>) -> Option<Vec<String>> {
        let (fields, first) = (self.fields.as_ref()?, first?);
        let asked = first.borrow().keys().filter(|key| fields.contains(&key.to_lowercase()));
        Some(asked.cloned().collect())
    }
}

/// The row with these of its fields, or with all.
fn project(row: &Row, fields: Option<&[String]>) -> Row {
    let Some(fields) = fields else { return row.clone() };
    fields.iter().filter_map(|field| Some((field.clone(), row.get(field)?.clone()))).collect()
}

/// The answer with a list under `name`.
pub(crate) fn answer(name: &str, listed: Option<Listed>) -> Answer {
    match listed {
        None => Answer::Empty(204),
        Some(Listed { rows, mut envelope }) => {
            envelope.insert(name.to_owned(), Value::Array(rows.into_iter().map(Value::Object).collect()));
            Answer::Json(200, Value::Object(envelope))
        }
    }
}

/// 400 with the ACD's way of saying why.
pub(crate) fn bad_request(why: &str) -> Answer {
    Answer::Status(400, why.to_owned())
}

/// Reads an instant of the query.
pub(crate) fn instant(ask: &Ask, name: &str) -> Result<Option<i64>, Answer> {
    match ask.param(name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => clock::read(text).map(Some).ok_or_else(|| bad_request(&format!("{name} is not a date"))),
    }
}

/// Reads a flag of the query.
pub(crate) fn flag(ask: &Ask, name: &str) -> Option<bool> {
    ask.param(name).and_then(|text| text.to_lowercase().parse().ok())
}

/// Numbers before texts; instants by time, because their fractions differ in length.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum SortKey {
    Nothing,
    Number(i64),
    Text(String),
}

fn sort_key(value: Option<&Value>) -> SortKey {
    match value {
        Some(Value::Number(number)) => SortKey::Number(number.as_i64().unwrap_or(0)),
        Some(Value::Bool(flag)) => SortKey::Number(i64::from(*flag)),
        Some(Value::String(text)) => clock::read(text).map_or_else(|| SortKey::Text(text.clone()), SortKey::Number),
        _ => SortKey::Nothing,
    }
}

fn link(root: &str, ask: &Ask, skip: usize, top: usize) -> String {
    let Ok(mut url) = reqwest::Url::parse(&format!("{root}{}", ask.path)) else { return String::new() };
    let kept = ask.query.iter().filter(|(key, _)| !["skip", "top"].contains(&key.to_lowercase().as_str()));
    url.query_pairs_mut()
        .extend_pairs(kept)
        .append_pair("skip", &skip.to_string())
        .append_pair("top", &top.to_string());
    url.into()
}
