-- The rate budgets, decided by the program: one row for each NICE tenant and API family holds all that is known, and
-- whoever takes of it locks the row. In place of budgets for each Knovvu tenant, which were decided by functions here
-- and handed out as leases.
--
-- Programs of before ask the functions that go here: they send nothing to NICE from now on, and must be replaced. What
-- they sent in the last minutes is not known to the new ones. Stop them first, or expect a 429 in the first window.

drop function take_rate_lease(text, text, bigint, double precision, double precision, bigint, bigint[], bigint[],
    double precision[]);
drop function take_rate_lease_of_class(text, text, text, bigint, double precision, double precision,
    double precision, bigint, bigint[], bigint[], double precision[]);
drop function note_rate_refusal(text, text, bigint, double precision, double precision, double precision);
drop function rate_budget_in_time(rate_budgets, timestamptz);
drop function rate_limit_grown(bigint, double precision, double precision, timestamptz, timestamptz);
drop table rate_leases;
drop table rate_budgets;

create table quota_budgets (
    account    text        not null,
    family     text        not null,
    state      text        not null,
    updated_at timestamptz not null default now(),
    primary key (account, family)
) with (fillfactor = 50);
comment on table quota_budgets is 'what counts against NICE''s limits at present';
comment on column quota_budgets.account is 'whose limit it is: issuer and NICE''s tenant, or knovvu/ and the tenant where the token does not say';
comment on column quota_budgets.family is 'acd or media_playback';
comment on column quota_budgets.state is 'JSON, written by the program; times are microseconds since 1970, each request''s as the distance from the one before';

create table quota_accounts (
    tenant_id text primary key check (tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$'),
    account   text not null
);
comment on table quota_accounts is 'the account that a Knovvu tenant drew on last';
