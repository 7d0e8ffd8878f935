-- Roles with no more rights than each service's statements need. Applied by an administrator, before the first
-- `nice-knovvu migrate` and again after each one; repeating it is harmless:
--
--     psql --dbname knovvu --file migrations/roles.sql
--
-- The four roles cannot log in. Give each service a user of its own and make it a member:
--
--     create user nice_producer password '…' in role knovvu_producer;
--     create user nice_migrate password '…' in role knovvu_owner;
--     alter user nice_migrate set role knovvu_owner;     -- so that the tables belong to the role, not to this user
--
-- knovvu_owner     owns the tables: `migrate`, `settings set`; never a running service
-- knovvu_producer  sources, agents, reconciliation; sees of a conversation that it stands, not whose it is
-- knovvu_consumer  writes conversations, completes them, and adds recordings that come late; deletes what was erased by an
--                  operator or is beyond the tenant's retention, and finished entries of the analysis, by functions that
--                  delete nothing else
-- knovvu_analysis  takes work from analysis_queue, reads the conversation and its recordings

do $$
declare
    role text;
begin
    foreach role in array array['knovvu_owner', 'knovvu_producer', 'knovvu_consumer', 'knovvu_analysis'] loop
        if not exists (select from pg_roles where rolname = role) then
            execute format('create role %I nologin', role);
        end if;
    end loop;
end
$$;

-- Who may make a table or a function here could lend it a name that somebody else's statement means. PostgreSQL 15 and
-- later begin so; a database that was made by an earlier one does not.
revoke create on schema public from public;
grant usage, create on schema public to knovvu_owner;
grant usage on schema public to knovvu_producer, knovvu_consumer, knovvu_analysis;

-- The rest needs the tables.
do $$
begin
    if to_regclass('public.timeline_visits') is null then
        raise notice 'no tables yet: run nice-knovvu migrate as a member of knovvu_owner, then apply this file again';
        return;
    end if;

    -- What an earlier version of this file gave and this one does not. Only our own tables: others may live here too.
    revoke all on refinery_schema_history, tenants, agents, agents_read, conversations, conversation_counts,
        recordings, analysis_queue, analysis_failed, dead_letters, timeline, timeline_visits, reconciliation_runs,
        backfills,
        nice_settings, quota_budgets, quota_accounts, recording_readiness, erasures, erasure_key, producer_turns,
        queue_members, queue_partitions, services, audit
        from public, knovvu_producer, knovvu_consumer, knovvu_analysis;
    revoke all on function claim_analysis(integer, text), finish_analysis(bigint, timestamptz),
        extend_analysis(bigint, timestamptz), fail_analysis(bigint, timestamptz, text, boolean),
        release_analysis(bigint, timestamptz), release_analysis(interval), retry_analysis(bigint)
        from public, knovvu_producer, knovvu_consumer;
    revoke all on function prune_analysis(interval, integer), requeue_analysis(bigint, timestamptz)
        from public, knovvu_producer, knovvu_analysis;
    revoke all on function erase_conversation(text, text, text, bytea),
        expired_conversations(text, text, timestamptz, timestamptz, text, integer),
        expire_conversations(text, text, timestamptz, text[]) from public, knovvu_producer, knovvu_analysis;

    -- Both services: is the schema mine; whose settings (secrets are sealed); what was set aside; what happened; how
    -- much may be asked of NICE.
    grant select on refinery_schema_history, tenants, nice_settings, conversation_counts, agents, agents_read
        to knovvu_producer, knovvu_consumer;
    grant select, insert, update, delete on dead_letters to knovvu_producer, knovvu_consumer;
    grant select, insert, delete on timeline, timeline_visits to knovvu_producer, knovvu_consumer;
    -- What operators did at the admin address; it is not changed, and goes when it is old.
    grant select on audit to knovvu_producer, knovvu_consumer;
    grant insert (who, act, subject) on audit to knovvu_producer, knovvu_consumer;
    grant execute on function prune_audit(interval) to knovvu_producer, knovvu_consumer;
    grant select, insert, update on quota_budgets, quota_accounts to knovvu_producer, knovvu_consumer;
    -- Whether a conversation was erased; not which one.
    grant select (tenant_id, digest, done_at) on erasures to knovvu_producer, knovvu_consumer;
    grant select on erasure_key to knovvu_producer, knovvu_consumer;

    grant insert, update on agents, agents_read to knovvu_producer;
    grant select on producer_turns to knovvu_consumer;
    -- Each says that it lives, and reads of the others.
    grant select, insert, update, delete on services to knovvu_producer, knovvu_consumer;
    -- The queue on Fluvio: a producer counts what waits; of a topic that it makes anew nothing counts as settled.
    grant select on queue_members, queue_partitions to knovvu_producer;
    grant update (next_offset, begun, deaths, epoch) on queue_partitions to knovvu_producer;
    grant select, insert, update, delete on queue_members, queue_partitions to knovvu_consumer;
    grant select, insert, update on producer_turns to knovvu_producer;
    -- Everything but the customer's number and NICE's own record.
    grant select (id, tenant_id, integration_type, external_id, master_external_id, agent_external_id, started_at,
                  ended_at, ended_on, direction, state, source, completed_at, lane, recordings_missing)
        on conversations to knovvu_producer;
    grant select on recordings to knovvu_producer;
    grant select (conversation_id, enqueued_at, claimed_at, finished_at, failed_at, attempts, lane)
        on analysis_queue to knovvu_producer;
    grant select, insert, update on reconciliation_runs, backfills to knovvu_producer;

    grant select, insert on conversations to knovvu_consumer;
    grant update (master_external_id, agent_external_id, started_at, ended_at, direction, customer_number, metadata,
                  state, source, completed_at, lane, recordings_missing, attempt) on conversations to knovvu_consumer;
    grant update on conversation_counts to knovvu_consumer;
    grant select, insert on recordings to knovvu_consumer;
    grant select, insert (conversation_id, enqueued_at, lane) on analysis_queue to knovvu_consumer;
    grant execute on function prune_analysis(interval, integer) to knovvu_consumer;
    -- A conversation to which recordings came after it was taken is given out again.
    grant execute on function requeue_analysis(bigint, timestamptz) to knovvu_consumer;
    grant select on reconciliation_runs, backfills to knovvu_consumer;
    grant select, insert, update on recording_readiness to knovvu_consumer;
    -- A tombstone stays for ever.
    grant select, insert, update (asked_at, external_id, started_at, done_at) on erasures to knovvu_consumer;
    grant insert on erasure_key to knovvu_consumer;
    grant execute on function erase_conversation(text, text, text, bytea),
        expired_conversations(text, text, timestamptz, timestamptz, text, integer),
        expire_conversations(text, text, timestamptz, text[]) to knovvu_consumer;

    grant select on agents, conversations, recordings, analysis_queue, analysis_failed to knovvu_analysis;
    grant update (claimed_at, claimed_by, finished_at, attempts, extended_at, failed_at, reason)
        on analysis_queue to knovvu_analysis;
    grant execute on function claim_analysis(integer, text), finish_analysis(bigint, timestamptz),
        extend_analysis(bigint, timestamptz), fail_analysis(bigint, timestamptz, text, boolean),
        release_analysis(bigint, timestamptz), release_analysis(interval), retry_analysis(bigint) to knovvu_analysis;
end
$$;
