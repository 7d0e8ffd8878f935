//! What is asked about calls: completed contacts, one contact, its legs, and where its recordings lie.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use model::ContactId;
use reqwest::Url;

use super::endpoint::Endpoint;
use super::http::{ApiAnswer, parse};
use super::wire::contact::{self, ListPage};
use super::wire::playback;
use super::{
    CompletedFilter, CompletedQuery, Contact, ContactPage, Excess, Leg, NextLink, NiceClient, NiceError, Playback,
    SegmentId, group, net,
};

/// NICE's number for phone calls.
const PHONE_CALL: &str = "4";

/// The one order that NICE's own clients use; unsorted paging is not promised to be stable.
const ORDER: &str = "lastUpdateTime asc";

/// What is read of a row, in the names of all versions: a row that has only that is an eighth of a whole one.
///
/// NICE's documentation has the parameter `fields` and says neither which versions take it nor what becomes of a name
/// that a version does not know. So whole rows are asked for until some of them, asked for both ways, prove that
/// nothing is missing of the chosen fields; where it is, or where they are refused, whole rows are asked for always.
const FIELDS: &str = "contactId,masterContactId,agentId,contactStartDate,contactStart,totalDurationSeconds,mediaTypeId,\
                      mediaType,lastUpdateTime";

/// What is known of the parameter `fields`.
pub(super) const UNPROVEN: u8 = 0;
const TAKEN: u8 = 1;
const OF_NO_USE: u8 = 2;

/// The rows that are asked for both ways.
const PROOF: u32 = 100;

impl NiceClient {
    /// Reads one page of completed contacts. How many there are, and whether more follow, is known only by an empty
    /// page.
    ///
    /// Contacts that change while pages are read move to the end of the order: page on by `skip` with an overlap,
    /// or compare the number of different contacts with `total`.
    pub async fn completed(&self, query: &CompletedQuery) -> Result<ContactPage, NiceError> {
        let fields = &self.inner.fields;
        match fields.load(Ordering::Relaxed) {
            TAKEN => match completed_of(self, query, Some(FIELDS)).await {
                Err(NiceError::TooMuch { why: Excess::Refused, .. }) => {
                    let page = completed_of(self, query, None).await?;
                    fields.store(OF_NO_USE, Ordering::Relaxed);
                    Ok(page)
                }
                page => page,
            },
            OF_NO_USE => completed_of(self, query, None).await,
            _ => {
                let page = completed_of(self, query, None).await?;
                if !page.contacts.is_empty() {
                    let proof = CompletedQuery { top: query.top.min(PROOF), next: None, ..query.clone() };
                    match completed_of(self, &proof, Some(FIELDS)).await {
                        Ok(chosen) => fields.store(proven(&chosen, &page), Ordering::Relaxed),
                        Err(NiceError::TooMuch { why: Excess::Refused, .. }) => {
                            fields.store(OF_NO_USE, Ordering::Relaxed)
                        }
                        Err(_) => {} // it proves nothing
                    }
                }
                Ok(page)
            }
        }
    }
}

/// What the same rows prove, chosen and whole: all that is needed must have been there at least once.
fn proven(chosen: &ContactPage, whole: &ContactPage) -> u8 {
    let what_it_has = |contact: &Contact| {
        let Contact { agent_id, started_at, total_duration, last_update_time, media_type_id, .. } = contact;
        let needed = [agent_id.is_some(), started_at.is_some(), total_duration.is_some(), last_update_time.is_some()];
        (needed, [media_type_id.is_some(), contact.master_contact_id != contact.contact_id])
    };
    let whole: HashMap<_, _> =
        whole.contacts.iter().flatten().map(|contact| (contact.contact_id, what_it_has(contact))).collect();
    let mut seen = [false; 4];
    for row in &chosen.contacts {
        let Ok(contact) = row else { return OF_NO_USE };
        let Some((needed, further)) = whole.get(&contact.contact_id) else { continue };
        let (has_needed, has_further) = what_it_has(contact);
        let lacks = |whole: &[bool], chosen: &[bool]| whole.iter().zip(chosen).any(|(whole, chosen)| *whole && !chosen);
        if lacks(needed, &has_needed) || lacks(further, &has_further) {
            tracing::info!("NICE leaves out some of the chosen fields of completed contacts, whole rows are asked for");
            return OF_NO_USE;
        }
        seen.iter_mut().zip(has_needed).for_each(|(seen, has)| *seen |= has);
    }
    if seen == [true; 4] { TAKEN } else { UNPROVEN }
}

async fn completed_of(
    nice: &NiceClient,
    query: &CompletedQuery,
    fields: Option<&str>,
) -> Result<ContactPage, NiceError> {
    let root = acd(nice, &["contacts", "completed"]).await?;
    let url = match &query.next {
        Some(NextLink(url)) if nice.inner.discovery.is_ours(url) => url.clone(),
        _ => completed_url(root, query, fields),
    };
    let page = match nice.get(Endpoint::Completed, &url).await? {
        ApiAnswer::Body(body) => parse(Endpoint::Completed, body, contact::completed).await?,
        ApiAnswer::Nothing => ListPage::empty(),
        ApiAnswer::NotFound => return Err(missing(Endpoint::Completed)),
    };
    let linked = page.next.is_some();
    let next =
        page.next.and_then(|link| group::follow(&nice.inner.api, &nice.inner.discovery, Endpoint::Completed, &link));
    Ok(ContactPage {
        contacts: page.rows,
        last_poll_time: page.last_poll_time,
        total: page.total,
        refused_next: linked && next.is_none(),
        next: next.map(NextLink),
    })
}

fn completed_url(mut url: Url, query: &CompletedQuery, fields: Option<&str>) -> Url {
    {
        let mut pairs = url.query_pairs_mut();
        match query.filter {
            CompletedFilter::UpdatedSince(since) => {
                pairs.append_pair("updatedSince", &floor(since));
            }
            CompletedFilter::Started { from, to } => {
                pairs.append_pair("startDate", &floor(from)).append_pair("endDate", &ceiling(to));
            }
        }
        pairs.append_pair("mediaTypeId", PHONE_CALL).append_pair("orderBy", ORDER);
        pairs.append_pair("top", &query.top.to_string()).append_pair("skip", &query.skip.to_string());
        if let Some(fields) = fields {
            pairs.append_pair("fields", fields);
        }
    }
    url
}

/// NICE's times have milliseconds and a literal `Z`; rounded so that nothing falls out of the range.
fn floor(time: Timestamp) -> String {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time).to_string()
}

fn ceiling(time: Timestamp) -> String {
    let millis = time.as_millisecond();
    let whole = Timestamp::from_millisecond(millis).is_ok_and(|floor| floor >= time);
    Timestamp::from_millisecond(millis + i64::from(!whole)).unwrap_or(time).to_string()
}

impl NiceClient {
    /// Reads one contact; one that NICE does not know is not ready.
    pub async fn contact(&self, id: ContactId) -> Result<Contact, NiceError> {
        let url = acd(self, &["contacts", &id.to_string()]).await?;
        let body = match self.get(Endpoint::Contact, &url).await? {
            ApiAnswer::Body(body) => body,
            ApiAnswer::Nothing | ApiAnswer::NotFound => {
                return Err(NiceError::NotReady { what: "NICE does not know the contact yet" });
            }
        };
        let contact = parse(Endpoint::Contact, body, contact::single).await?;
        let contact = contact.map_err(|bad| NiceError::permanent(format!("contact: {bad}")))?;
        if contact.contact_id != id {
            return Err(NiceError::transient("contact: NICE answered with another contact"));
        }
        Ok(contact)
    }

    /// Reads the legs of the call that the contact belongs to, the master contact among them; none where NICE
    /// keeps no hierarchy of it.
    pub async fn legs(&self, id: ContactId) -> Result<Vec<Leg>, NiceError> {
        let url = acd(self, &["contacts", &id.to_string(), "hierarchy"]).await?;
        match self.get(Endpoint::Hierarchy, &url).await? {
            ApiAnswer::Body(body) => parse(Endpoint::Hierarchy, body, contact::hierarchy).await,
            ApiAnswer::Nothing => Ok(Vec::new()),
            ApiAnswer::NotFound => Err(NiceError::NotReady { what: "NICE does not know the call's legs yet" }),
        }
    }

    /// Reads where the recordings of a whole call lie; not ready until at least one voice interaction is there.
    pub async fn contact_playback(&self, master: ContactId) -> Result<Playback, NiceError> {
        let mut url =
            net::below(&self.inner.discovery.facade(&self.inner.api).await?, &["media-playback", "v1", "contacts"]);
        url.query_pairs_mut().append_pair("acd-call-id", &master.to_string());
        narrow(&mut url);
        url.query_pairs_mut().append_pair("isDownload", "false");
        read_playback(self, Endpoint::ContactPlayback, &url).await
    }

    /// Reads where the recording of one agent leg lies.
    pub async fn segment_playback(&self, segment: &SegmentId) -> Result<Playback, NiceError> {
        let root = self.inner.discovery.facade(&self.inner.api).await?;
        let mut url = net::below(&root, &["media-playback", "v1", "segments", segment.as_str()]);
        narrow(&mut url);
        read_playback(self, Endpoint::SegmentPlayback, &url).await
    }
}

/// Voice, without the waveforms (large) and categories that nobody reads.
fn narrow(url: &mut Url) {
    url.query_pairs_mut()
        .append_pair("media-type", "voice-only")
        .append_pair("exclude-waveforms", "true")
        .append_pair("exclude-qm-categories", "true");
}

async fn read_playback(nice: &NiceClient, endpoint: Endpoint, url: &Url) -> Result<Playback, NiceError> {
    let not_ready = NiceError::NotReady { what: "the recording is not processed yet" };
    match nice.get(endpoint, url).await? {
        ApiAnswer::Body(body) => {
            let answered = parse(endpoint, body, playback::read).await?;
            nice.inner.api.http.passed_over(&answered.passed_over);
            answered.playback.ok_or(not_ready)
        }
        ApiAnswer::Nothing | ApiAnswer::NotFound => Err(not_ready),
    }
}

/// The URL of a path of the ACD API.
pub(super) async fn acd(nice: &NiceClient, path: &[&str]) -> Result<Url, NiceError> {
    let root = nice.inner.discovery.acd(&nice.inner.api).await?;
    let root = net::below(&root, &["inContactAPI", "services", &nice.inner.settings.api_version]);
    Ok(net::below(&root, path))
}

/// A list that is always there is missing: the version or the root is wrong, which is no conversation's fault.
fn missing(endpoint: Endpoint) -> NiceError {
    NiceError::refused(format!("{}: NICE has no such list, is the api_version right?", endpoint.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(filter: CompletedFilter) -> String {
        let root = Url::parse("https://a.example/contacts/completed").unwrap();
        completed_url(root, &CompletedQuery { filter, top: 500, skip: 1_000, next: None }, None).to_string()
    }

    #[test]
    fn times_are_sent_with_a_literal_z() {
        let since = "2026-04-01T16:29:31.443999Z".parse().unwrap();
        assert_eq!(
            asked(CompletedFilter::UpdatedSince(since)),
            "https://a.example/contacts/completed?updatedSince=2026-04-01T16%3A29%3A31.443Z&mediaTypeId=4\
             &orderBy=lastUpdateTime+asc&top=500&skip=1000"
        );
    }

    #[test]
    fn a_range_is_never_narrowed_by_rounding() {
        let from = "2026-04-01T00:00:00.000001Z".parse().unwrap();
        let to = "2026-04-02T00:00:00.000001Z".parse().unwrap();
        let url = asked(CompletedFilter::Started { from, to });
        assert!(url.contains("startDate=2026-04-01T00%3A00%3A00Z&endDate=2026-04-02T00%3A00%3A00.001Z&"), "{url}");
        let to = "2026-04-02T00:00:00Z".parse().unwrap();
        assert!(asked(CompletedFilter::Started { from, to }).contains("endDate=2026-04-02T00%3A00%3A00Z&"));
    }
}
