//! Step 6, `store`: changes become rows of ClickHouse.

/// Everything up to the point of the source is stored in ClickHouse. Only this stage builds one.
#[derive(Debug)]
pub struct Stored<P> {
    point: P,
}

impl<P> Stored<P> {
    /// The point that may be acknowledged.
    pub fn into_point(self) -> P {
        self.point
    }
}
