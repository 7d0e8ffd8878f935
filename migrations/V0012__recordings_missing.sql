-- Calls of which NICE names more recordings than it gave, and up to where calls were looked at once more.

-- No check: that would read the whole table while nobody may write.
alter table conversations add column recordings_missing integer not null default 0;
comment on column conversations.recordings_missing is
    'of a ready conversation: how many recordings NICE names besides those that are stored, and did not give';

alter table recordings add column source text;
comment on column recordings.source is
    'what NICE names the recording by, segment and start time, where it can be told from the others of its call';

alter table producer_turns add column rechecked_to timestamptz;
comment on column producer_turns.rechecked_to is
    'calls without all their recordings that began before this time were looked at once more by the nightly run';

-- What was taken, or is done, is given out again: recordings have come to the conversation since. What waits stays where
-- it is. The worker that has the old claim finds that it was released.
do $migrate$
begin
    execute format($sql$
create function %1$I.requeue_analysis(conversation bigint, moment timestamptz) returns boolean
language sql security definer set search_path = pg_catalog, pg_temp as $$
    with requeued as (
        update %1$I.analysis_queue q
        set enqueued_at = moment, claimed_at = null, claimed_by = null, finished_at = null, failed_at = null,
            reason = null, attempts = 0
        where q.conversation_id = conversation and q.claimed_at is not null
        returning pg_notify('analysis_queue', q.conversation_id::text)
    )
    select exists (select from requeued)
$$
    $sql$, current_schema());
end
$migrate$;
comment on function requeue_analysis is
    'puts a conversation that was taken back on the queue, for it has more recordings now; false if it waits there anyhow';

-- It runs with the rights of its owner: nobody may call it who was not named.
revoke all on function requeue_analysis(bigint, timestamptz) from public;

-- As roles.sql gives them: services do not stand still until it is applied.
do $$
begin
    if exists (select from pg_roles where rolname = 'knovvu_producer') then
        grant select (recordings_missing) on conversations to knovvu_producer;
    end if;
    if exists (select from pg_roles where rolname = 'knovvu_consumer') then
        grant update (recordings_missing) on conversations to knovvu_consumer;
        grant execute on function requeue_analysis(bigint, timestamptz) to knovvu_consumer;
    end if;
end
$$;
