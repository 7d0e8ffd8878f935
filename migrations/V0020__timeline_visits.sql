-- The timeline by visits: what stages made of a conversation within a moment is one row, and one entry of the index. A
-- row for each hop was the largest part of what a conversation cost the database. Rows of before stay in `timeline`, where
-- they are read until they are old; programs of before go on writing there.

create table timeline_visits (
    id               bigint generated always as identity primary key,
    tenant_id        text collate "C" not null,
    integration_type text collate "C" not null,
    external_id      text collate "C" not null,
    last_at          timestamptz not null,
    hops             json not null check (json_typeof(hops) = 'array')
);
comment on table timeline_visits is 'what happened to a conversation, for people; kept for 30 days';
comment on column timeline_visits.hops is 'what the stages made of it, in their order; nobody looks inside but the daemon';
comment on column timeline_visits.last_at is 'when the last of these stages had finished';

create index timeline_visits_of_conversation on timeline_visits (tenant_id, external_id);

do $migrate$
declare
    statement text;
begin
    -- As in V0011: each names its tables with their schema.
    foreach statement in array array[
        $sql$
create or replace function %1$I.erase_conversation(
    tenant text, kind text, external text, mark bytea, out conversations bigint, out letters bigint, out hops bigint
) language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    of_visits bigint;
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
    with gone as (
        delete from %1$I.timeline_visits v
        where v.tenant_id = tenant and v.integration_type = kind and v.external_id = external
        returning json_array_length(v.hops) as length
    )
    select coalesce(sum(g.length), 0) into of_visits from gone g;
    hops := hops + of_visits;
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
    ), visits as (
        delete from %1$I.timeline_visits v using gone g
        where v.tenant_id = tenant and v.integration_type = kind and v.external_id = g.external_id
    )
    select count(*) from gone into expired;
end
$$
        $sql$
    ] loop
        execute format(statement, current_schema());
    end loop;
    -- As roles.sql gives it: services do not stand without a timeline until it is applied.
    if exists (select from pg_roles where rolname = 'knovvu_producer') then
        grant select, insert, delete on timeline_visits to knovvu_producer;
    end if;
    if exists (select from pg_roles where rolname = 'knovvu_consumer') then
        grant select, insert, delete on timeline_visits to knovvu_consumer;
    end if;
end
$migrate$;
