-- The analysis queue counts attempts and has a shelf, tells claims apart by a token, and takes fresh calls first. Functions
-- trust no name that somebody else could give.
--
-- A claim is a time in whole milliseconds, later than every one before it of the same entry, and stands in `claim` also
-- after it was given back. It is a time so that who finishes by `claimed_at`, as the first version had it, goes on to
-- work whatever his driver sends: with a second form of another type, PostgreSQL could not tell which one is meant by
-- `finish_analysis($1, $2)`. Whole milliseconds are what every driver hands back unharmed.
--
-- Programs and workers of before go on: what they write gets the lane `live`, and what they claim is counted.

alter table conversations
    add column lane text collate "C" not null default 'live',
    add constraint conversations_lane check (lane in ('live', 'backfill')) not valid; -- no row of before needs a look
comment on column conversations.lane is 'live or backfill: the lane by which it came last';

alter table analysis_queue
    add column lane        text collate "C" not null default 'live',
    add column attempts    integer not null default 0,
    add column claim       timestamptz,
    add column extended_at timestamptz,
    add column failed_at   timestamptz,
    add column reason      text,
    add constraint analysis_queue_lane check (lane in ('live', 'backfill')) not valid,
    add constraint analysis_queue_shelved check (failed_at is null or (claimed_at is not null and finished_at is null))
        not valid;
comment on column analysis_queue.lane is 'live goes before backfill';
comment on column analysis_queue.attempts is 'how often it was claimed, and not given back by choice';
comment on column analysis_queue.claim is 'the token of the last claim';
comment on column analysis_queue.extended_at is 'the last sign of life of the worker, where it gave one';
comment on column analysis_queue.failed_at is 'since when it is on the shelf analysis_failed';
comment on column analysis_queue.reason is 'why the last attempt failed';

-- Downwards, "live" comes before "backfill". The index of before stays: programs of before list by it, and so do we.
create index analysis_queue_next on analysis_queue (lane desc, enqueued_at, conversation_id) where claimed_at is null;
create index analysis_queue_failed on analysis_queue (failed_at) where failed_at is not null;
create index analysis_queue_finished on analysis_queue (finished_at) where finished_at is not null;

create view analysis_failed as
    select q.conversation_id, c.tenant_id, c.integration_type, c.external_id, q.attempts, q.reason, q.failed_at,
        q.enqueued_at, q.lane
    from analysis_queue q join conversations c on c.id = q.conversation_id
    where q.failed_at is not null;
comment on view analysis_failed is
    'the shelf: what no worker could analyse, and why; retry_analysis gives an entry back to the queue';

-- Its columns change. Whoever has prepared a statement with it must prepare it again, once.
drop function claim_analysis(integer, text);

-- A name without its schema could be another one's: each is qualified with the schema where the tables are made, and the
-- search path holds nothing that anybody may write to. pg_temp stands last in it: unnamed, it would be the first.
do $migrate$
declare
    statement text;
begin
    foreach statement in array array[
        -- Who claims by hand is counted as well. A token goes on from the one before, also where the clock went back. An
        -- entry that is put back from the shelf, or after it was finished, is as new.
        $sql$
create function %1$I.note_analysis_claim() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if new.claimed_at is null then
        if old.failed_at is not null or old.finished_at is not null then
            new.failed_at := null;
            new.reason := null;
            new.attempts := 0;
        end if;
        return new;
    end if;
    new.attempts := old.attempts + 1;
    new.claim := greatest(date_trunc('milliseconds', new.claimed_at), old.claim + interval '1 millisecond');
    new.claimed_at := greatest(new.claimed_at, new.claim);
    new.extended_at := null;
    return new;
end
$$
        $sql$,
        $sql$
create function %1$I.claim_analysis(most integer, claimant text default null)
returns table (
    conversation_id bigint, tenant_id text, integration_type text, external_id text,
    enqueued_at timestamptz, claimed_at timestamptz, claim timestamptz
) language sql set search_path = pg_catalog, pg_temp as $$
    with next as (
        select waiting.conversation_id from %1$I.analysis_queue waiting
        where waiting.claimed_at is null
        order by waiting.lane desc, waiting.enqueued_at, waiting.conversation_id
        limit most
        for update skip locked
    ), taken as (
        update %1$I.analysis_queue entry
        set claimed_at = date_trunc('milliseconds', clock_timestamp()), claimed_by = claimant
        from next where entry.conversation_id = next.conversation_id
        returning entry.conversation_id, entry.lane, entry.enqueued_at, entry.claimed_at, entry.claim
    )
    select taken.conversation_id, c.tenant_id, c.integration_type, c.external_id, taken.enqueued_at, taken.claimed_at,
        taken.claim
    from taken join %1$I.conversations c on c.id = taken.conversation_id
    order by taken.lane desc, taken.enqueued_at, taken.conversation_id
$$
        $sql$,
        -- What was claimed before there were tokens has none.
        $sql$
create or replace function %1$I.finish_analysis(conversation bigint, claim timestamptz) returns boolean
language sql set search_path = pg_catalog, pg_temp as $$
    with finished as (
        update %1$I.analysis_queue q set finished_at = clock_timestamp()
        where q.conversation_id = conversation and q.claimed_at is not null and q.finished_at is null
            and q.failed_at is null
            and coalesce(q.claim, date_trunc('milliseconds', q.claimed_at))
                = date_trunc('milliseconds', finish_analysis.claim)
        returning 1
    )
    select exists (select from finished)
$$
        $sql$,
        $sql$
create function %1$I.extend_analysis(conversation bigint, claim timestamptz) returns boolean
language sql set search_path = pg_catalog, pg_temp as $$
    with extended as (
        update %1$I.analysis_queue q set extended_at = clock_timestamp()
        where q.conversation_id = conversation and q.claimed_at is not null and q.finished_at is null
            and q.failed_at is null
            and coalesce(q.claim, date_trunc('milliseconds', q.claimed_at))
                = date_trunc('milliseconds', extend_analysis.claim)
        returning 1
    )
    select exists (select from extended)
$$
        $sql$,
        $sql$
create function %1$I.fail_analysis(
    conversation bigint, claim timestamptz, reason text, for_good boolean default false
) returns boolean language sql set search_path = pg_catalog, pg_temp as $$
    with failed as (
        update %1$I.analysis_queue q
        set reason = left(coalesce(nullif(fail_analysis.reason, ''), 'no reason given'), 1000),
            failed_at = case when for_good or q.attempts >= 5 then clock_timestamp() end,
            claimed_at = case when for_good or q.attempts >= 5 then q.claimed_at end,
            claimed_by = case when for_good or q.attempts >= 5 then q.claimed_by end
        where q.conversation_id = conversation and q.claimed_at is not null and q.finished_at is null
            and q.failed_at is null
            and coalesce(q.claim, date_trunc('milliseconds', q.claimed_at))
                = date_trunc('milliseconds', fail_analysis.claim)
        returning case when q.failed_at is null then pg_notify('analysis_queue', q.conversation_id::text) end
    )
    select exists (select from failed)
$$
        $sql$,
        $sql$
create function %1$I.release_analysis(conversation bigint, claim timestamptz) returns boolean
language sql set search_path = pg_catalog, pg_temp as $$
    with released as (
        update %1$I.analysis_queue q
        set claimed_at = null, claimed_by = null, attempts = greatest(q.attempts - 1, 0)
        where q.conversation_id = conversation and q.claimed_at is not null and q.finished_at is null
            and q.failed_at is null
            and coalesce(q.claim, date_trunc('milliseconds', q.claimed_at))
                = date_trunc('milliseconds', release_analysis.claim)
        returning pg_notify('analysis_queue', q.conversation_id::text)
    )
    select exists (select from released)
$$
        $sql$,
        -- Of claims that follow each other at once, the last one's time may lie some milliseconds ahead of the clock.
        $sql$
create or replace function %1$I.release_analysis(older_than interval) returns bigint
language sql set search_path = pg_catalog, pg_temp as $$
    with stale as (
        select q.conversation_id from %1$I.analysis_queue q
        where q.claimed_at < clock_timestamp() - older_than + interval '10 milliseconds' and q.claimed_at is not null
            and (q.extended_at is null or q.extended_at < clock_timestamp() - older_than)
            and q.finished_at is null and q.failed_at is null
        for update skip locked
    ), released as (
        update %1$I.analysis_queue q
        set failed_at = case when q.attempts >= 5 then clock_timestamp() end,
            reason = case when q.attempts >= 5
                then left('no sign of life from its worker at attempt ' || q.attempts
                    || coalesce('; before: ' || q.reason, ''), 1000)
                else q.reason end,
            claimed_at = case when q.attempts >= 5 then q.claimed_at end,
            claimed_by = case when q.attempts >= 5 then q.claimed_by end
        from stale where q.conversation_id = stale.conversation_id
        returning case when q.failed_at is null then pg_notify('analysis_queue', q.conversation_id::text) end
    )
    select count(*) from released
$$
        $sql$,
        $sql$
create function %1$I.retry_analysis(conversation bigint) returns boolean
language sql set search_path = pg_catalog, pg_temp as $$
    with given_back as (
        update %1$I.analysis_queue q
        set claimed_at = null, claimed_by = null
        where q.conversation_id = conversation and q.failed_at is not null
        returning pg_notify('analysis_queue', q.conversation_id::text)
    )
    select exists (select from given_back)
$$
        $sql$,
        $sql$
create function %1$I.prune_analysis(older_than interval, most integer default 2000) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    with old as (
        select q.conversation_id from %1$I.analysis_queue q
        where q.finished_at < clock_timestamp() - older_than
        order by q.finished_at
        limit most
        for update skip locked
    ), pruned as (
        delete from %1$I.analysis_queue q using old where q.conversation_id = old.conversation_id returning 1
    )
    select count(*) from pruned
$$
        $sql$,
        -- From here on as before, but for the search path and the names. The counting is done with the rights of whoever
        -- changes conversations, the deleting functions below among them.
        $sql$
create or replace function %1$I.count_conversations() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    saved bigint := 0;
    done  bigint := 0;
    none  bigint := 0;
    gone  record;
begin
    if tg_op = 'TRUNCATE' then
        update %1$I.conversation_counts set metadata_saved = 0, ready = 0, no_recording = 0;
        return null;
    end if;
    if tg_op <> 'DELETE' then
        select count(*) filter (where state = 'metadata_saved'), count(*) filter (where state = 'ready'),
               count(*) filter (where state = 'no_recording')
        into saved, done, none from after_rows;
    end if;
    if tg_op <> 'INSERT' then
        select count(*) filter (where state = 'metadata_saved') as saved, count(*) filter (where state = 'ready') as done,
               count(*) filter (where state = 'no_recording') as none
        into gone from before_rows;
        saved := saved - gone.saved;
        done := done - gone.done;
        none := none - gone.none;
    end if;
    if (saved, done, none) <> (0, 0, 0) then
        update %1$I.conversation_counts
        set metadata_saved = metadata_saved + saved, ready = ready + done, no_recording = no_recording + none
        where slot = pg_backend_pid() %% 16;
    end if;
    return null;
end
$$
        $sql$,
        $sql$
create or replace function %1$I.erase_conversation(
    tenant text, kind text, external text, mark bytea, out conversations bigint, out letters bigint, out hops bigint
) language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (
        select from %1$I.erasures e where e.tenant_id = tenant and e.digest = mark and e.external_id = external
    ) then
        raise exception 'no erasure of this conversation is pending' using errcode = 'no_data_found';
    end if;
    delete from %1$I.conversations c
        where c.tenant_id = tenant and c.integration_type = kind and c.external_id = external;
    get diagnostics conversations = row_count;
    delete from %1$I.dead_letters d where d.tenant_id = tenant and d.conversation_id = external;
    get diagnostics letters = row_count;
    delete from %1$I.timeline t where t.tenant_id = tenant and t.integration_type = kind and t.external_id = external;
    get diagnostics hops = row_count;
end
$$
        $sql$,
        $sql$
create or replace function %1$I.expired_conversations(
    tenant text, kind text, moment timestamptz, after_end timestamptz, after_id text, most integer
) returns table (
    external_id text, started_at timestamptz, ended_at timestamptz, buckets text[], object_keys text[]
) language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    horizon timestamptz;
begin
    select least(clock_timestamp(), moment) - make_interval(secs => extract(epoch from s.retention)) into horizon
        from %1$I.nice_settings s where s.tenant_id = tenant and s.retention is not null;
    if horizon is null then
        return;
    end if;
    return query
        select c.external_id, c.started_at, c.ended_at,
            array(select r.bucket from %1$I.recordings r where r.conversation_id = c.id order by r.position),
            array(select r.object_key from %1$I.recordings r where r.conversation_id = c.id order by r.position)
        from %1$I.conversations c
        where c.tenant_id = tenant and c.integration_type = kind
            and c.ended_on <= (horizon at time zone 'UTC')::date and c.ended_at < horizon
            and (c.state <> 'metadata_saved' or c.ended_at < horizon - interval '6 hours')
            and (c.ended_on, length(c.external_id), c.external_id) > (
                coalesce((after_end at time zone 'UTC')::date, '-infinity'), coalesce(length(after_id), 0),
                coalesce(after_id, '')
            )
        order by c.ended_on, length(c.external_id), c.external_id
        limit most;
end
$$
        $sql$,
        $sql$
create or replace function %1$I.expire_conversations(
    tenant text, kind text, moment timestamptz, externals text[], out expired bigint
) language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    with gone as (
        delete from %1$I.conversations c using %1$I.nice_settings s
        where s.tenant_id = tenant and s.retention is not null
            and c.tenant_id = tenant and c.integration_type = kind and c.external_id = any (externals)
            and c.ended_at < least(clock_timestamp(), moment) - make_interval(secs => extract(epoch from s.retention))
                - case when c.state = 'metadata_saved' then interval '6 hours' else interval '0' end
        returning c.external_id
    ), letters as (
        delete from %1$I.dead_letters d using gone g where d.tenant_id = tenant and d.conversation_id = g.external_id
    ), hops as (
        delete from %1$I.timeline t using gone g
        where t.tenant_id = tenant and t.integration_type = kind and t.external_id = g.external_id
    )
    select count(*) from gone into expired;
end
$$
        $sql$
    ] loop
        execute format(statement, current_schema());
    end loop;
end
$migrate$;

create trigger analysis_queue_claim_noted before update of claimed_at on analysis_queue
    for each row when ((old.claimed_at is null) <> (new.claimed_at is null)) execute function note_analysis_claim();

comment on function claim_analysis is
    'takes waiting conversations, live ones first and the oldest of them first, at most so many; two claimers never get the same';
comment on function finish_analysis is 'marks a claim as done; false if it is not the entry''s claim any more';
comment on function extend_analysis is 'a sign of life: release_analysis counts from here; false if the claim is over';
comment on function fail_analysis is
    'this attempt failed for this reason: back to the queue, or at the fifth one, or for good, to the shelf analysis_failed';
comment on function release_analysis(bigint, timestamptz) is 'gives a claim back as if it had never been';
comment on function release_analysis(interval) is
    'takes back claims without a sign of life for so long: to the queue, or the fifth time to the shelf analysis_failed';
comment on function retry_analysis is 'gives an entry of the shelf analysis_failed back to the queue';
comment on function prune_analysis is 'deletes entries that were finished so long ago, the oldest first, at most so many';

-- It runs with the rights of its owner. The rest runs with those of the caller.
revoke all on function prune_analysis(interval, integer) from public;

-- As roles.sql gives them: workers do not stand still until it is applied.
do $$
begin
    if exists (select from pg_roles where rolname = 'knovvu_analysis') then
        revoke all on function claim_analysis(integer, text), extend_analysis(bigint, timestamptz),
            fail_analysis(bigint, timestamptz, text, boolean), release_analysis(bigint, timestamptz),
            retry_analysis(bigint) from public;
        grant execute on function claim_analysis(integer, text), extend_analysis(bigint, timestamptz),
            fail_analysis(bigint, timestamptz, text, boolean), release_analysis(bigint, timestamptz),
            retry_analysis(bigint) to knovvu_analysis;
        grant update (attempts, extended_at, failed_at, reason) on analysis_queue to knovvu_analysis;
        grant select on analysis_failed to knovvu_analysis;
    end if;
    if exists (select from pg_roles where rolname = 'knovvu_producer') then
        grant select (failed_at, attempts, lane) on analysis_queue to knovvu_producer;
    end if;
    if exists (select from pg_roles where rolname = 'knovvu_consumer') then
        grant update (lane) on conversations to knovvu_consumer;
        grant insert (lane) on analysis_queue to knovvu_consumer;
        grant execute on function prune_analysis(interval, integer) to knovvu_consumer;
    end if;
end
$$;
