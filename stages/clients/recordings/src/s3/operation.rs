//! What is asked of the store.

use crate::StoreMetrics;

/// What is asked of the store; the name is the label in metrics and the subject of error texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Put,
    CreateUpload,
    UploadPart,
    CompleteUpload,
    AbortUpload,
    Tag,
    Get,
    Head,
    ListUploads,
    ListParts,
    ListVersions,
    Delete,
}

impl Operation {
    /// Each of them.
    const ALL: [Self; 12] = [
        Self::Put,
        Self::CreateUpload,
        Self::UploadPart,
        Self::CompleteUpload,
        Self::AbortUpload,
        Self::Tag,
        Self::Get,
        Self::Head,
        Self::ListUploads,
        Self::ListParts,
        Self::ListVersions,
        Self::Delete,
    ];

    /// The label in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::CreateUpload => "create_upload",
            Self::UploadPart => "upload_part",
            Self::CompleteUpload => "complete_upload",
            Self::AbortUpload => "abort_upload",
            Self::Tag => "tag",
            Self::Get => "get",
            Self::Head => "head",
            Self::ListUploads => "list_uploads",
            Self::ListParts => "list_parts",
            Self::ListVersions => "list_versions",
            Self::Delete => "delete",
        }
    }
}

/// Lets the series that count retries start at zero.
pub(super) fn start_at_zero(metrics: &StoreMetrics) {
    for operation in Operation::ALL {
        metrics.retries.with_label_values(&[operation.name()]);
    }
}
