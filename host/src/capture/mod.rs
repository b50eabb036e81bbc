//! Step 1, `capture`: the replication stream and the snapshot, as PostgreSQL sends them.
