-- Who did what at the admin address: written before it is done, and never changed.

create table audit (
    id      bigint primary key generated always as identity,
    at      timestamptz not null default clock_timestamp(),
    who     text not null,
    act     text not null,
    subject text not null
);
comment on table audit is 'what operators did by page and API; the running services add and read, and change nothing';

create index audit_by_age on audit (at);

-- The services may not delete: what is younger than thirty days stays, whatever they ask for.
create function prune_audit(keep interval) returns void
    language sql
    security definer
    set search_path = pg_catalog, pg_temp
as $$
    delete from public.audit where id in (
        select a.id from public.audit a
        where a.at < clock_timestamp() - greatest(keep, interval '30 days') order by a.at limit 1000
    )
$$;
revoke all on function prune_audit(interval) from public;
