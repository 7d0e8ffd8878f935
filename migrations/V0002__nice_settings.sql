-- Each tenant's NICE settings: a column for each key of [nice], by the same name. The columns of secrets hold sealed
-- text, bound to tenant and column; `nice-knovvu settings set` writes them.

create table nice_settings (
    tenant_id         text collate "C" primary key references tenants on delete cascade,
    issuer            text not null,
    auth_flow         text not null check (auth_flow in ('oauth', 'access_key')),
    client_id         text,
    client_secret     text check (client_secret ~ '^v[0-9]+[.]'),
    access_key_id     text not null,
    access_key_secret text not null check (access_key_secret ~ '^v[0-9]+[.]'),
    group_kind        text not null check (group_kind in ('acd_group', 'team')),
    "group"           text not null,
    api_version       text not null,
    acd_url           text,
    facade_url        text,
    auth_url          text,
    media_hosts       text[] not null check (cardinality(media_hosts) > 0),
    recording_scope   text not null check (recording_scope in ('leg', 'master')),
    revision          bigint not null,
    updated_at        timestamptz not null,
    check (auth_flow <> 'oauth' or (client_id is not null and client_secret is not null))
);
comment on column nice_settings.revision is 'another one after each change, a deletion and a new start included; set by a trigger';

create function revise_nice_settings() returns trigger language plpgsql as $$
begin
    new.updated_at := clock_timestamp();
    new.revision := extract(epoch from new.updated_at) * 1000000;
    if tg_op = 'UPDATE' then
        new.revision := greatest(new.revision, old.revision + 1);
    end if;
    return new;
end
$$;

create trigger nice_settings_revised before insert or update on nice_settings
    for each row execute function revise_nice_settings();
