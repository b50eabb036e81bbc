//! Step 5, `send`: records travel over Kafka, and come back out of it on the other leg.

/// Everything up to the point of the source is committed in Kafka. Only this stage builds one.
#[derive(Debug)]
pub struct Delivered<P> {
    point: P,
}

impl<P> Delivered<P> {
    /// The point that may be acknowledged.
    pub fn into_point(self) -> P {
        self.point
    }
}
