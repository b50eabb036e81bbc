//! Step 4, `encode`: changes become Debezium records, and records become changes again.
