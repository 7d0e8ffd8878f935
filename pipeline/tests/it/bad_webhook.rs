//! bad_webhook
