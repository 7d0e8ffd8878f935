-- Erasure of single conversations, and retention.
--
-- An erased conversation leaves a tombstone: a digest of its key, made with a key that is not in the database. By it
-- every replay knows that the conversation is not to come back, and nobody can read back whose it was. While an
-- erasure is pending its row also holds the plain id: what a writer began before the tombstone stood may appear after
-- everything was deleted, and is looked for again, some hours long. Then the id goes.
--
-- The services have no right to delete conversations. They call the functions below, which delete only what has a
-- tombstone and a pending erasure, or what lies beyond its tenant's retention. pg_temp stands last in their search path:
-- unnamed, it would be the first.

create table erasures (
    tenant_id   text collate "C" not null,
    digest      bytea not null check (length(digest) = 32),
    asked_at    timestamptz not null,
    external_id text collate "C" check (external_id ~ '^[1-9][0-9]{0,18}$'),
    started_at  timestamptz,
    done_at     timestamptz,
    primary key (tenant_id, digest),
    check ((external_id is null) = (done_at is not null)),
    check (started_at is null or done_at is null)
);
comment on column erasures.external_id is 'until the erasure is done, and no longer';

create index erasures_pending on erasures (digest) where done_at is null;

create table erasure_key (
    is_only     boolean primary key default true check (is_only),
    fingerprint bytea not null check (length(fingerprint) = 32)
);
comment on table erasure_key is 'which key the digests are made with: another one would know none of them';

alter table nice_settings add column retention interval
    check (extract(epoch from retention) >= 86400);
comment on column nice_settings.retention is 'conversations are kept for so long after their end; null: for ever';

create function erase_conversation(
    tenant text, kind text, external text, mark bytea, out conversations bigint, out letters bigint, out hops bigint
) language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    if not exists (
        select from erasures e where e.tenant_id = tenant and e.digest = mark and e.external_id = external
    ) then
        raise exception 'no erasure of this conversation is pending' using errcode = 'no_data_found';
    end if;
    delete from conversations c
        where c.tenant_id = tenant and c.integration_type = kind and c.external_id = external;
    get diagnostics conversations = row_count;
    delete from dead_letters d where d.tenant_id = tenant and d.conversation_id = external;
    get diagnostics letters = row_count;
    delete from timeline t where t.tenant_id = tenant and t.integration_type = kind and t.external_id = external;
    get diagnostics hops = row_count;
end
$$;
comment on function erase_conversation is 'deletes every row of a conversation whose erasure is pending';

-- By tenant first: a tenant whose retention is long is not read past in search of another's.
create index conversations_of_tenant_by_day on conversations (tenant_id, ended_on, length(external_id), external_id);

-- What is not final is kept for six hours more: whoever works on it then has begun before its time was over. The
-- earlier of two clocks counts, so that one that is ahead deletes nothing.
create function expired_conversations(
    tenant text, kind text, moment timestamptz, after_end timestamptz, after_id text, most integer
) returns table (
    external_id text, started_at timestamptz, ended_at timestamptz, buckets text[], object_keys text[]
) language plpgsql stable security definer set search_path = pg_catalog, public, pg_temp as $$
declare
    horizon timestamptz;
begin
    select least(clock_timestamp(), moment) - make_interval(secs => extract(epoch from s.retention)) into horizon
        from nice_settings s where s.tenant_id = tenant and s.retention is not null;
    if horizon is null then
        return;
    end if;
    return query
        select c.external_id, c.started_at, c.ended_at,
            array(select r.bucket from recordings r where r.conversation_id = c.id order by r.position),
            array(select r.object_key from recordings r where r.conversation_id = c.id order by r.position)
        from conversations c
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
$$;
comment on function expired_conversations is
    'conversations whose retention is over, after one of them, oldest first, and where their recordings lie';

create function expire_conversations(
    tenant text, kind text, moment timestamptz, externals text[], out expired bigint
) language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $$
begin
    with gone as (
        delete from conversations c using nice_settings s
        where s.tenant_id = tenant and s.retention is not null
            and c.tenant_id = tenant and c.integration_type = kind and c.external_id = any (externals)
            and c.ended_at < least(clock_timestamp(), moment) - make_interval(secs => extract(epoch from s.retention))
                - case when c.state = 'metadata_saved' then interval '6 hours' else interval '0' end
        returning c.external_id
    ), letters as (
        delete from dead_letters d using gone g where d.tenant_id = tenant and d.conversation_id = g.external_id
    ), hops as (
        delete from timeline t using gone g
        where t.tenant_id = tenant and t.integration_type = kind and t.external_id = g.external_id
    )
    select count(*) from gone into expired;
end
$$;
comment on function expire_conversations is 'deletes every row of those of these conversations whose retention is over';

-- They run with the rights of their owner: nobody may call them who was not named.
revoke all on function erase_conversation(text, text, text, bytea),
    expired_conversations(text, text, timestamptz, timestamptz, text, integer),
    expire_conversations(text, text, timestamptz, text[]) from public;
