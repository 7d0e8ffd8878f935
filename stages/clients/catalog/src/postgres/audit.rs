//! What operators did at the admin address.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    PostgresCatalog,
    rows::{saturated, unreadable},
    text,
};
use crate::{Audits, CatalogError, OperatorAct};

const RECORD: &str = "insert into audit (who, act, subject) values ($1, $2, $3)";

const PRUNE: &str = "select prune_audit(make_interval(secs => $1))";

const ACTS: &str = "
    select id, at, who, act, subject from audit where $1::bigint is null or id < $1 order by id desc limit $2";

#[async_trait]
impl Audits for PostgresCatalog {
    async fn record_act(&self, act: &OperatorAct, keep: Duration) -> Result<(), CatalogError> {
        let [who, what, subject] = [&act.who, &act.act, &act.subject].map(|field| text::text(field));
        self.inner.database.execute("record an act", RECORD, &[&who, &what, &subject]).await?;
        self.query("prune the audit", PRUNE, &[&keep.as_secs_f64()]).await?;
        Ok(())
    }

    async fn acts(&self, before: Option<u64>, limit: usize) -> Result<Vec<OperatorAct>, CatalogError> {
        let (before, limit) = (before.map(saturated), saturated(limit));
        let rows = self.query("list acts", ACTS, &[&before, &limit]).await?;
        let act = |row: &tokio_postgres::Row| {
            Ok(OperatorAct {
                id: u64::try_from(row.try_get::<_, i64>("id").map_err(unreadable)?).map_err(unreadable)?,
                at: row.try_get("at").map_err(unreadable)?,
                who: row.try_get("who").map_err(unreadable)?,
                act: row.try_get("act").map_err(unreadable)?,
                subject: row.try_get("subject").map_err(unreadable)?,
            })
        };
        rows.iter().map(act).collect()
    }
}
