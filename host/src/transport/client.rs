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
    /// The first record that the broker did not take.
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
            let mut first = self.undelivered.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| error.clone());
        }
    }
}
