//! Functions with the rights of their owner serve nobody who may make functions beside them.

use database::testing::ROLES;
use tokio_postgres::error::SqlState;

use super::{
    sample::{conversation, key},
    *,
};

/// Our functions with the rights of their owner; not those of extensions.
const DEFINERS: &str = "
    select p.oid::regprocedure::text, p.proconfig, p.prosrc, has_function_privilege('public', p.oid, 'execute')
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where p.prosecdef and n.nspname not in ('pg_catalog', 'information_schema')
        and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    order by 1";

/// The tables and views that stand in our schema.
const TABLES: &str =
    "select relname::text from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')";

#[tokio::test]
async fn no_function_with_its_owners_rights_looks_for_a_name_where_others_may_write() {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    let client = database.admin.client().await.unwrap();
    let tables: Vec<String> = client.query(TABLES, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let definers = client.query(DEFINERS, &[]).await.unwrap();
    let names: Vec<String> = definers.iter().map(|row| row.get(0)).collect();
    assert!(names.len() >= 4 && names.iter().any(|name| name.starts_with("expire_conversations")), "{names:?}");
    for definer in &definers {
        let (name, settings): (String, Option<Vec<String>>) = (definer.get(0), definer.get(1));
        let settings = settings.unwrap_or_default();
        assert!(settings.contains(&"search_path=pg_catalog, pg_temp".to_owned()), "{name}: {settings:?}");
        assert!(!definer.get::<_, bool>(3), "{name}: anybody may call it");
        let source: &str = definer.get(2);
        for table in &tables {
            let bare = ["from", "join", "update", "into", "using"].map(|word| format!("{word} {table} "));
            assert!(!bare.iter().any(|bare| source.contains(bare.as_str())), "{name}: {table} without its schema");
        }
    }
    // What they fire runs with the same rights.
    let fired = "
        select distinct p.proname::text, p.proconfig from pg_trigger t join pg_proc p on p.oid = t.tgfoid
        join pg_class c on c.oid = t.tgrelid
        where not t.tgisinternal and (t.tgtype & 8) <> 0 and c.relnamespace = 'public'::regnamespace";
    let fired = client.query(fired, &[]).await.unwrap();
    assert!(!fired.is_empty());
    for row in fired {
        let settings: Option<Vec<String>> = row.get(1);
        let settings = settings.unwrap_or_default();
        assert!(settings.contains(&"search_path=pg_catalog, pg_temp".to_owned()), "{}", row.get::<_, String>(0));
    }
}

#[tokio::test]
async fn nobody_but_the_owner_may_make_anything_beside_the_tables() {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    // As a database that was made by PostgreSQL 14 or earlier has it.
    database.sql("grant create on schema public to public").await;
    database.apply(&[ROLES]).await;
    for user in ["test_producer", "test_consumer", "test_analysis"] {
        let made = database.member(user).client().await.unwrap().batch_execute("create table public.mine ()").await;
        assert_eq!(made.unwrap_err().code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{user}");
    }
    let owner = database.member("test_owner").client().await.unwrap();
    owner.batch_execute("create table public.ours (); drop table public.ours").await.unwrap();
}

#[tokio::test]
async fn a_function_that_another_role_makes_beside_ours_is_never_called_with_the_owners_rights() {
    let database = TestDatabase::on(test_servers::postgres().await).await;
    let consumer = catalog_of(database.member("test_consumer"));
    consumer.save_metadata(&conversation(1)).await.unwrap();
    database
        .sql(
            "grant create on schema public to public;
             insert into tenants (tenant_id, slug) values ('acme', 'acme');
             insert into nice_settings (tenant_id, issuer, auth_flow, access_key_id, access_key_secret, group_kind,
                 \"group\", api_version, media_hosts, recording_scope, retention)
             values ('acme', 'https://x', 'access_key', 'x', 'v1.x', 'team', 'x', 'v33.0', array['x'], 'leg', '1 day');
             update conversations set ended_at = now() - interval '9 days';
             create table public.caught (who text);
             grant insert on public.caught to public",
        )
        .await;
    // It takes its argument as it is, which that of pg_catalog does only after a conversion.
    let attack = "
        create function public.make_interval(secs numeric) returns interval language plpgsql as $$
        begin
            insert into public.caught values (current_user);
            return pg_catalog.make_interval(secs => secs::double precision);
        end $$;
        create temp table nice_settings (tenant_id text, retention interval);
        create temp table conversations (tenant_id text);
        create temp table analysis_queue (conversation_id bigint)";
    let attacker = database.member("test_consumer");
    let client = attacker.client().await.unwrap();
    client.batch_execute(attack).await.unwrap();
    for call in [
        "select * from expired_conversations('acme', 'nice-cxone', now(), null, null, 10)",
        "select expire_conversations('acme', 'nice-cxone', now(), array['1'])",
        "select prune_analysis('1 day')",
    ] {
        client.batch_execute(call).await.unwrap();
    }
    let seen = database.admin.query("what was caught", "select distinct who from public.caught", &[]).await.unwrap();
    let seen: Vec<String> = seen.iter().map(|row| row.get(0)).collect();
    assert_eq!(seen, Vec::<String>::new(), "it ran with the rights of these");
    assert!(consumer.conversation(&key(1)).await.unwrap().is_none(), "and the real rows are gone");
}
