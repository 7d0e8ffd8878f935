//! bad_nice
