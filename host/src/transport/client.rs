//! What librdkafka tells beside its answers: logs, errors of connections, failed deliveries.

use std::sync::{Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

use super::Error;

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// A login that was refused; librdkafka keeps trying and only ever times out.
    refused: Mutex<Option<String>>,
    /// The first record that the broker did not take; one that the client threw away because of another one only
    /// as long as nothing is heard of that.
    undelivered: Mutex<Option<KafkaError>>,
}

impl Events {
    /// Sorts an error, in the light of what was heard.
    pub(super) fn error(&self, action: &'static str, error: KafkaError) -> Error {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        let undelivered = self.undelivered();
        match (refused, undelivered) {
            (Some(detail), _) => Error::Denied { action, detail },
            (None, Some(undelivered)) => match Error::new(action, undelivered) {
                Error::Broker { .. } => Error::new(action, error),
                definite => definite,
            },
            (None, None) => Error::new(action, error),
        }
    }

    /// Takes in a failed delivery. When a transaction fails, the client throws away what waits in its queues and
    /// reports that before the record that was at fault.
    fn note(&self, error: &KafkaError) {
        let thrown_away = |error: &KafkaError| {
            let code = error.rdkafka_error_code();
            matches!(code, Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight))
        };
        let mut first = self.undelivered.lock().unwrap_or_else(PoisonError::into_inner);
        if first.as_ref().is_none_or(|first| thrown_away(first) && !thrown_away(error)) {
            *first = Some(error.clone());
        }
    }

    /// The first failed delivery since it was last asked for.
    pub(super) fn undelivered(&self) -> Option<KafkaError> {
        self.undelivered.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // Of a connection: every client of every attempt says so, and again and again. It comes as
            // an error of what was tried, too, and that is logged once.
            _ if facility == "FAIL" => tracing::debug!(facility, "kafka client: {message}"),
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => tracing::warn!(facility, "kafka client: {message}"),
            RDKafkaLogLevel::Warning
            | RDKafkaLogLevel::Notice
            | RDKafkaLogLevel::Info
            | RDKafkaLogLevel::Debug => tracing::debug!(facility, "kafka client: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka connection");
        if matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::Authentication
                    | RDKafkaErrorCode::SaslAuthenticationFailed
                    | RDKafkaErrorCode::SSL
            )
        ) {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            *refused = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Events {}

impl ProducerContext for Events {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.note(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_thrown_away_because_of_a_record_does_not_hide_why_that_was_refused() {
        let failed = KafkaError::MessageProduction;
        let events = Events::default();
        for code in [RDKafkaErrorCode::PurgeQueue, RDKafkaErrorCode::MessageSizeTooLarge] {
            events.note(&failed(code));
        }
        events.note(&failed(RDKafkaErrorCode::PurgeInflight));
        let first = events.undelivered();
        assert_eq!(first, Some(failed(RDKafkaErrorCode::MessageSizeTooLarge)));
        events.note(&failed(RDKafkaErrorCode::PurgeQueue));
        assert_eq!(events.undelivered(), Some(failed(RDKafkaErrorCode::PurgeQueue)));
    }
}
