//! Step 2, `decode`: pgoutput messages become changes. Sans-I/O.
