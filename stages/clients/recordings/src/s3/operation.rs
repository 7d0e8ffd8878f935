//! What is asked of the store.

use crate::StoreMetrics;

macro_rules! operations {
    ($($operation:ident: $name:literal;)+) => {
        /// What is asked of the store; the name is the label in metrics and the subject of error texts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Operation {
            $($operation),+
        }

        impl Operation {
            const NAMES: &[&'static str] = &[$($name),+];

            /// The label in metrics.
            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$operation => $name),+ }
            }
        }
    };
}

operations! {
    Put: "put";
    CreateUpload: "create_upload";
    UploadPart: "upload_part";
    CompleteUpload: "complete_upload";
    AbortUpload: "abort_upload";
    Tag: "tag";
    Get: "get";
    Head: "head";
    ListUploads: "list_uploads";
    ListParts: "list_parts";
    ListVersions: "list_versions";
    Delete: "delete";
}

/// Lets the series that count retries start at zero.
pub(super) fn start_at_zero(metrics: &StoreMetrics) {
    for name in Operation::NAMES {
        metrics.retries.with_label_values(&[*name]);
    }
}
