-- The rate budget that all processes of a tenant share: never more than so many requests in any window.
--
-- A process takes a lease: some grants, to be used within a moment. Each counts until a whole window after the last
-- moment at which it could be used, whatever becomes of the process. A process that goes on says later how many it
-- used, and when the last one; the rest is free again.

create table rate_budgets (
    tenant_id text collate "C" not null,
    family    text collate "C" not null,
    takes     bigint not null default 0,
    primary key (tenant_id, family)
);
comment on table rate_budgets is 'one row for each budget, locked by whoever takes of it';

create table rate_leases (
    id           bigint generated always as identity primary key,
    tenant_id    text collate "C" not null,
    family       text collate "C" not null,
    grants       bigint not null check (grants > 0),
    taken_at     timestamptz not null,
    counts_until timestamptz not null
);

create index rate_leases_of_budget on rate_leases (tenant_id, family, counts_until);

create function take_rate_lease(
    tenant text, budget text, most bigint, counted_secs double precision, usable_secs double precision, wanted bigint,
    settled bigint[], used bigint[], secs_ago double precision[],
    out lease bigint, out granted bigint, out room_in_secs double precision
) language plpgsql as $$
declare
    moment timestamptz;
begin
    -- A grant that a crash of the server forgets would be given twice.
    if current_setting('synchronous_commit') in ('off', 'local') then
        perform set_config('synchronous_commit', 'on', true);
    end if;

    -- Whoever takes of the same budget waits here for the commit of the one before. Each statement below sees what
    -- that one wrote; where the isolation level would hide it, this very statement fails.
    insert into rate_budgets as b (tenant_id, family) values (tenant, budget)
        on conflict (tenant_id, family) do update set takes = b.takes + 1;
    moment := clock_timestamp();

    -- The clock was set back: what was taken counts from now on.
    update rate_leases l set counts_until = moment + (l.counts_until - l.taken_at), taken_at = moment
        where l.tenant_id = tenant and l.family = budget and l.taken_at > moment;

    delete from rate_leases l using unnest(settled, used) as s (id, count)
        where l.id = s.id and l.tenant_id = tenant and l.family = budget and s.count = 0;
    update rate_leases l
        set grants = least(l.grants, s.count),
            counts_until = least(l.counts_until, moment + make_interval(secs => counted_secs - s.ago))
        from unnest(settled, used, secs_ago) as s (id, count, ago)
        where l.id = s.id and l.tenant_id = tenant and l.family = budget and s.count > 0;
    delete from rate_leases l where l.tenant_id = tenant and l.family = budget and l.counts_until < moment;

    select greatest(least(wanted, most - coalesce(sum(l.grants), 0)), 0),
           coalesce(extract(epoch from min(l.counts_until) - moment), 0)
        into granted, room_in_secs
        from rate_leases l where l.tenant_id = tenant and l.family = budget;
    if granted > 0 then
        room_in_secs := 0;
        insert into rate_leases (tenant_id, family, grants, taken_at, counts_until)
            values (tenant, budget, granted, moment, moment + make_interval(secs => usable_secs + counted_secs))
            returning id into lease;
    end if;
end
$$;
comment on function take_rate_lease is 'takes up to "wanted" grants of a budget, and notes what became of earlier leases';
