//! amc
