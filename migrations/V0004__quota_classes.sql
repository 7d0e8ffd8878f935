-- On whose account a request goes: live calls first, reconciliation and backfill evenly and within a share; and what
-- NICE's refusals (429) teach all processes at once.
--
-- `take_rate_lease` of V0003 stays, for processes of the version before: what they take counts as live. They do not
-- see a refusal.

alter table rate_leases
    add column class text collate "C" not null default 'live'
        check (class in ('live', 'retry', 'agents', 'reconciliation', 'backfill'));

alter table rate_budgets
    add column live_waits_until           timestamptz,
    add column reconciliation_waits_until timestamptz,
    add column next_even_at               timestamptz,
    add column lowered_to                 double precision,
    add column closed_at                  timestamptz,
    add column closed_until               timestamptz,
    add column pauses                     integer not null default 0;
comment on column rate_budgets.live_waits_until is 'until then nothing is given to classes that have time';
comment on column rate_budgets.next_even_at is 'the even place of the next request of the classes that have time';
comment on column rate_budgets.lowered_to is 'what NICE''s last refusal made of the limit; it grows back from closed_until on';
comment on column rate_budgets.pauses is 'pauses after refusals that followed each other';

-- The limit after a refusal: by 2 % of the settings' limit in the first quiet window, each further one twice as much.
create function rate_limit_grown(
    most bigint, counted_secs double precision, lowered_to double precision, closed_until timestamptz, moment timestamptz
) returns double precision language sql immutable as $$
    select case when lowered_to is null then most else least(most, lowered_to + most * 0.02 * (power(2::double precision,
        least(16, floor(greatest(0, extract(epoch from moment - closed_until)) / greatest(counted_secs, 60)))::integer)
        - 1)) end
$$;
comment on function rate_limit_grown is 'the most requests in a window, as far as NICE''s refusals tell; not rounded';

-- The clock may have been set back since a note was made: it holds for no longer than one that is made now. Whoever
-- asks keeps what comes out, or it would move on with the clock and never end.
create function rate_budget_in_time(noted rate_budgets, moment timestamptz)
returns rate_budgets language plpgsql immutable as $$
begin
    if noted.closed_at > moment or noted.closed_until > moment + interval '5 minutes' then
        noted.closed_until := moment + least(noted.closed_until - noted.closed_at, interval '5 minutes');
        noted.closed_at := least(noted.closed_at, moment);
    end if;
    if noted.live_waits_until > moment + interval '2 seconds' then
        noted.live_waits_until := moment + interval '2 seconds';
    end if;
    if noted.reconciliation_waits_until > moment + interval '2 seconds' then
        noted.reconciliation_waits_until := moment + interval '2 seconds';
    end if;
    return noted;
end
$$;
comment on function rate_budget_in_time is 'the notes of a budget, none of them of a time that the clock has not reached';

create function take_rate_lease_of_class(
    tenant text, budget text, asked_class text, most bigint, live_reserve double precision,
    counted_secs double precision, usable_secs double precision, wanted bigint,
    settled bigint[], used bigint[], secs_ago double precision[],
    out lease bigint, out granted bigint, out room_in_secs double precision, out limit_now bigint
) language plpgsql as $$
declare
    b         rate_budgets;
    in_time   rate_budgets;
    moment    timestamptz;
    opens_at  timestamptz;
    leaves_at timestamptz;
    even_at   timestamptz;
    taken     bigint;
    taken_evenly bigint;
    room      bigint;
    share     bigint;
    spacing   double precision;
    slack     double precision;
    has_time  boolean := asked_class in ('reconciliation', 'backfill');
begin
    -- A grant that a crash of the server forgets would be given twice.
    if current_setting('synchronous_commit') in ('off', 'local') then
        perform set_config('synchronous_commit', 'on', true);
    end if;

    -- Whoever takes of the same budget waits here for the commit of the one before. Each statement below sees what
    -- that one wrote; where the isolation level would hide it, this very statement fails.
    insert into rate_budgets as r (tenant_id, family) values (tenant, budget)
        on conflict (tenant_id, family) do update set takes = r.takes + 1
        returning r.* into b;
    moment := clock_timestamp();

    -- The clock was set back: what was taken counts from now on, and nothing stays closed for longer than it may be.
    update rate_leases l set counts_until = moment + (l.counts_until - l.taken_at), taken_at = moment
        where l.tenant_id = tenant and l.family = budget and l.taken_at > moment;
    in_time := rate_budget_in_time(b, moment);
    if in_time is distinct from b then
        b := in_time;
        update rate_budgets r
            set closed_at = b.closed_at, closed_until = b.closed_until, live_waits_until = b.live_waits_until,
                reconciliation_waits_until = b.reconciliation_waits_until
            where r.tenant_id = tenant and r.family = budget;
    end if;

    delete from rate_leases l using unnest(settled, used) as s (id, count)
        where l.id = s.id and l.tenant_id = tenant and l.family = budget and s.count = 0;
    update rate_leases l
        set grants = least(l.grants, s.count),
            counts_until = least(l.counts_until, moment + make_interval(secs => counted_secs - s.ago))
        from unnest(settled, used, secs_ago) as s (id, count, ago)
        where l.id = s.id and l.tenant_id = tenant and l.family = budget and s.count > 0;
    delete from rate_leases l where l.tenant_id = tenant and l.family = budget and l.counts_until < moment;

    select coalesce(sum(l.grants), 0),
           coalesce(sum(l.grants) filter (where l.class in ('reconciliation', 'backfill')), 0)
        into taken, taken_evenly
        from rate_leases l where l.tenant_id = tenant and l.family = budget;
    limit_now := greatest(1, floor(rate_limit_grown(most, counted_secs, b.lowered_to, b.closed_until, moment)));
    room := limit_now - taken;
    opens_at := moment;
    if room <= 0 then
        select min(g.counts_until) into leaves_at from (
            select l.counts_until, sum(l.grants) over (order by l.counts_until, l.id) as gone
            from rate_leases l where l.tenant_id = tenant and l.family = budget
        ) g where taken - g.gone < limit_now;
        opens_at := greatest(opens_at, leaves_at);
    end if;

    if b.closed_until > moment then
        room := 0;
        opens_at := greatest(opens_at, b.closed_until);
    elsif moment < b.closed_until + greatest(b.closed_until - b.closed_at, make_interval(secs => 2 * counted_secs / most))
    then
        -- The pause was over a moment ago: one by one, until NICE has shown that it takes them.
        select max(l.taken_at) + make_interval(secs => counted_secs / limit_now) into even_at
            from rate_leases l where l.tenant_id = tenant and l.family = budget;
        room := case when even_at > moment then 0 else least(room, 1) end;
        opens_at := greatest(opens_at, even_at);
    end if;

    if has_time then
        share := greatest(1, floor(limit_now * (1 - live_reserve) + 1e-9));
        spacing := counted_secs / share;
        slack := greatest(spacing / 4, 0.1);
        even_at := greatest(moment,
            least(coalesce(b.next_even_at, moment), moment + make_interval(secs => spacing + slack)));
        if b.next_even_at > even_at then
            -- The clock was set back, or the limit is larger than it was.
            update rate_budgets r set next_even_at = even_at where r.tenant_id = tenant and r.family = budget;
        end if;
        room := least(room, share - taken_evenly,
            floor((extract(epoch from moment - even_at) + slack) / spacing)::bigint + 1);
        opens_at := greatest(opens_at, even_at - make_interval(secs => slack));
        if taken_evenly >= share then
            select min(g.counts_until) into leaves_at from (
                select l.counts_until, sum(l.grants) over (order by l.counts_until, l.id) as gone
                from rate_leases l
                where l.tenant_id = tenant and l.family = budget and l.class in ('reconciliation', 'backfill')
            ) g where taken_evenly - g.gone < share;
            opens_at := greatest(opens_at, leaves_at);
        end if;
        if b.live_waits_until > moment then
            room := 0;
            opens_at := greatest(opens_at, b.live_waits_until);
        end if;
        if asked_class = 'backfill' and b.reconciliation_waits_until > moment then
            room := 0;
            opens_at := greatest(opens_at, b.reconciliation_waits_until);
        end if;
    end if;

    granted := greatest(least(wanted, room), 0);
    room_in_secs := 0;
    if granted > 0 then
        insert into rate_leases (tenant_id, family, class, grants, taken_at, counts_until)
            values (tenant, budget, asked_class, granted, moment,
                moment + make_interval(secs => usable_secs + counted_secs))
            returning id into lease;
        if has_time then
            update rate_budgets r set next_even_at = even_at + make_interval(secs => granted * spacing)
                where r.tenant_id = tenant and r.family = budget;
        end if;
    elsif wanted > 0 then
        room_in_secs := extract(epoch from opens_at - moment);
        -- Who waits asks again within a second.
        if asked_class = 'reconciliation' then
            update rate_budgets r set reconciliation_waits_until = moment + interval '2 seconds'
                where r.tenant_id = tenant and r.family = budget;
        elsif not has_time then
            update rate_budgets r set live_waits_until = moment + interval '2 seconds'
                where r.tenant_id = tenant and r.family = budget;
        end if;
    end if;
end
$$;
comment on function take_rate_lease_of_class is 'takes up to "wanted" grants of a budget, as far as the class may have them now, and notes what became of earlier leases';

create function note_rate_refusal(
    tenant text, budget text, most bigint, counted_secs double precision, asked_secs double precision,
    jitter double precision, out closed_secs double precision, out limit_now bigint
) language plpgsql as $$
declare
    b      rate_budgets;
    moment timestamptz;
    latest timestamptz;
    taken  bigint;
    grown  double precision;
    again  integer := 0;
    kept   double precision := 0.95;
    pause  double precision;
    asked  double precision := least(greatest(asked_secs, 1), 300);
begin
    insert into rate_budgets as r (tenant_id, family) values (tenant, budget)
        on conflict (tenant_id, family) do update set takes = r.takes + 1
        returning r.* into b;
    moment := clock_timestamp();
    b := rate_budget_in_time(b, moment);
    grown := rate_limit_grown(most, counted_secs, b.lowered_to, b.closed_until, moment);
    select coalesce(sum(l.grants), 0), max(l.taken_at) into taken, latest from rate_leases l
        where l.tenant_id = tenant and l.family = budget and l.counts_until >= moment;

    if b.closed_until is not null and (moment < b.closed_until or latest is null or latest < b.closed_until) then
        -- It was under way when the first one was refused.
        if asked_secs is not null and moment + make_interval(secs => asked) > b.closed_until then
            b.closed_until := moment + make_interval(secs => asked);
        end if;
    else
        if moment < b.closed_until
            + greatest(2 * (b.closed_until - b.closed_at), make_interval(secs => 8 * counted_secs / most))
        then
            again := b.pauses + 1;
            kept := 0.98;
        end if;
        pause := case when asked_secs is not null then asked
            else least(greatest(counted_secs / most, 1) * power(2, least(again, 16)) * jitter, 300) end;
        -- One of those that were granted was not allowed.
        b.lowered_to := greatest(1, least(taken - 1, grown * kept));
        b.closed_at := moment;
        b.closed_until := moment + make_interval(secs => pause);
        b.pauses := again;
    end if;
    update rate_budgets r
        set lowered_to = b.lowered_to, closed_at = b.closed_at, closed_until = b.closed_until, pauses = b.pauses,
            live_waits_until = b.live_waits_until, reconciliation_waits_until = b.reconciliation_waits_until
        where r.tenant_id = tenant and r.family = budget;
    closed_secs := greatest(0, extract(epoch from b.closed_until - moment));
    limit_now := greatest(1, floor(rate_limit_grown(most, counted_secs, b.lowered_to, b.closed_until, moment)));
end
$$;
comment on function note_rate_refusal is 'closes a budget for a moment, for all processes, and lowers its limit to what NICE really granted';
