//! What the cluster's controller knows and does: topics, their partitions, and the brokers that lead them.

use std::fmt::Debug;
use std::time::Duration;

use fluvio::dataplane::link::ErrorCode;
use fluvio::dataplane::{Decoder, Encoder};
use fluvio::metadata::AdminSpec;
use fluvio::metadata::objects::{
    CommonCreateRequest, CreateRequest, ListFilter, ListRequest, ListResponse, Metadata, ObjectApiCreateRequest,
    ObjectApiListRequest,
};
use fluvio::metadata::topic::TopicSpec;
use fluvio_sc_schema::TryEncodableFrom;

use super::peer::Peer;
use super::{QUESTION_TIMEOUT, failure};
use crate::QueueError;

/// How long the making of a topic is awaited. The controller answers once all partitions are there, which may take
/// longer; whoever makes one looks at what has become of it.
const CREATE_TIMEOUT: Duration = Duration::from_secs(10);

/// All that there is of a kind.
pub(super) async fn list<S>(controller: &Peer) -> Result<Vec<Metadata<S>>, QueueError>
where
    S: AdminSpec,
    S::Status: Encoder + Decoder + Debug,
{
    let request = |version| {
        let all: Vec<ListFilter> = Vec::new();
        ObjectApiListRequest::try_encode_from(ListRequest::<S>::new(all, false), version).map_err(failure)
    };
    let answer = controller.ask(QUESTION_TIMEOUT, request).await?;
    let list: Option<ListResponse<S>> = answer.downcast().map_err(failure)?;
    let list = list.ok_or_else(|| failure(format!("{}: another answer than was asked for", controller.address())))?;
    Ok(list.inner())
}

/// Has a topic made. That it is there already is no error; nor is that its partitions are not all there in time.
pub(super) async fn create_topic(controller: &Peer, name: &str, spec: TopicSpec) -> Result<(), QueueError> {
    let request = |version| {
        let common = CommonCreateRequest { name: name.to_owned(), ..CommonCreateRequest::default() };
        ObjectApiCreateRequest::try_encode_from(CreateRequest::new(common, spec), version).map_err(failure)
    };
    let status = controller.ask(CREATE_TIMEOUT, request).await?;
    match status.error_code {
        ErrorCode::None | ErrorCode::TopicAlreadyExists | ErrorCode::TopicNotProvisioned => Ok(()),
        code => Err(failure(format!("topic {name}: {}", status.error_message.unwrap_or_else(|| code.to_string())))),
    }
}
