//! The configuration file and command line.
