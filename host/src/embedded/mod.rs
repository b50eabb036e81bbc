//! The embedded ClickHouse engine: libchdb behind ClickHouse's HTTP interface, in a child process.
