//! bad_settings
