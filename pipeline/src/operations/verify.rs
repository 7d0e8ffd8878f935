//! Reading recordings back, on an operator's word: a page at a time, so that no request lasts long.

use catalog::Recorded;
use jiff::Timestamp;
use model::{ContactId, ConversationKey};
use serde::{Deserialize, Serialize};
use stages::verify::{Verified, Verifier};

use super::{OperationError, Operations};

/// Conversations in one answer of a listing.
pub(crate) const LISTED: usize = 1_000;

/// Conversations that are read back in one request.
pub(crate) const VERIFIED_AT_ONCE: usize = 5;

/// Which conversations are asked for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) after: Option<Recorded>,
}

impl Operations {
    /// The next conversations of a range that have recordings.
    pub(crate) async fn recorded(&self, question: Question) -> Result<Vec<Recorded>, OperationError> {
        let Question { from, to, after } = question;
        let listed = self.verifier()?.list(self.tenant()?, from, to, after, LISTED).await;
        listed.map_err(OperationError::Verification)
    }

    /// Reads the recordings of some conversations back.
    pub(crate) async fn verify(&self, ids: Vec<ContactId>) -> Result<Verified, OperationError> {
        if ids.len() > VERIFIED_AT_ONCE {
            return Err(OperationError::Invalid(format!("at most {VERIFIED_AT_ONCE} conversations at a time")));
        }
        let mut verified = Verified::default();
        for external_id in ids {
            let key = ConversationKey { tenant: self.tenant()?.clone(), external_id };
            verified.add(self.verifier()?.verify(&key).await.map_err(OperationError::Verification)?);
        }
        Ok(verified)
    }

    fn verifier(&self) -> Result<&Verifier, OperationError> {
        self.verifier.as_ref().ok_or_else(|| {
            OperationError::Refused(
                "this process has no recording store; run `verify` with the settings of a consumer".to_owned(),
            )
        })
    }
}
