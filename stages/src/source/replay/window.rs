//! Which calls a run is about.
//!
//! In: a run, and a slice of what NICE lists. Out: the events of the group's calls in the run's window.

use catalog::{ReplayRun, RunKind};
use jiff::Timestamp;
use model::{ContactEvent, QuotaClass};

use super::{ReplayWorker, stop::Stop};
use crate::source::{
    ListError, earliest_listed,
    event::{event_of, event_or_dead_letter},
    listing::{ListedCall, Listing, Slice},
};
use crate::watermark::back;

impl ReplayWorker {
    /// Lists what is left of the run's window.
    pub(super) fn listing(&self, run: &ReplayRun) -> Listing {
        let (begin, to, clock) = (self.begin(run), self.end(run), self.context.flow.clock.clone());
        let listing = |class| Listing::new(self.tenants.clone(), run.tenant_id.clone(), class, begin, to);
        match run.kind {
            RunKind::Backfill => listing(QuotaClass::Backfill).extracting(clock),
            // A call may have lasted longer than anybody thought.
            RunKind::Reconciliation => {
                listing(QuotaClass::Reconciliation).with_earlier(self.first_start(run), run.from, clock)
            }
        }
    }

    /// Where the listing begins: calls are listed by their start, and the comparison is of those that ended in the
    /// window.
    fn begin(&self, run: &ReplayRun) -> Timestamp {
        match run.kind {
            RunKind::Reconciliation if run.reached == run.from => self.first_start(run),
            RunKind::Reconciliation | RunKind::Backfill => run.reached,
        }
    }

    /// From when on a comparison lists calls by their start.
    fn first_start(&self, run: &ReplayRun) -> Timestamp {
        back(run.from, self.longest_call).max(earliest_listed(self.context.flow.clock.now()))
    }

    /// Nothing is listed beyond the present.
    fn end(&self, run: &ReplayRun) -> Timestamp {
        run.to.min(self.context.flow.clock.now()).max(run.reached)
    }

    /// The calls of the group in the run's window, and how many more there are beyond the tenant's retention: of an
    /// extracted call the end is not known. Rows that cannot be read come last.
    pub(super) async fn events(&self, run: &ReplayRun, slice: &Slice) -> Result<(Vec<ContactEvent>, u64), Stop> {
        let tenant = self.tenants.get(&run.tenant_id).await;
        let retention = tenant.map_err(|error| self.troubled(run, &ListError::Settings(error)))?.retention;
        let now = self.context.flow.clock.now();
        let latest_end = |call: &ListedCall| call.started_at?.checked_add(self.longest_call).ok();
        let is_kept = |call: &ListedCall| latest_end(call).is_none_or(|end| retention.reaches(end, now));
        let (source, mut expired) = (run.kind.source(), 0);
        let mut events = Vec::new();
        for call in slice.calls.iter().filter(|call| is_in_window(run, call)) {
            let event = event_of(call, &run.tenant_id, source, &self.roster.borrow(), run.members);
            match event {
                Some(_) if call.ended_at.is_none() && !is_kept(call) => expired += 1,
                event => events.extend(event),
            }
        }
        for row in &slice.bad {
            events.extend(event_or_dead_letter(row, &run.tenant_id, source, &self.context).await?);
        }
        Ok((events, expired))
    }
}

/// Whether a call belongs to the run; one whose time is not known does.
fn is_in_window(run: &ReplayRun, call: &ListedCall) -> bool {
    let time = match run.kind {
        RunKind::Reconciliation => call.ended_at,
        RunKind::Backfill => call.started_at,
    };
    time.is_none_or(|time| time >= run.from && time < run.to)
}
