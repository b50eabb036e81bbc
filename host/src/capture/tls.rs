//! `sslmode` as libpq has it, over rustls.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore,
    SignatureScheme,
};

use super::error::Error;
use super::source_url::{Tls, TlsOptions};

/// The client's configuration for the URL's TLS words.
///
/// # Errors
/// [`Error::Certificate`] if a file cannot be read or holds no certificate.
pub fn client_config(options: &TlsOptions) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(options, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match (&options.client_cert, &options.client_key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(Error::Tls),
        _ => Ok(builder.with_no_client_auth()),
    }
}

fn verifier(
    options: &TlsOptions,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let trust = match options.mode {
        // libpq: with a root certificate at hand, `require` verifies it as `verify-ca` does.
        Tls::Require if options.root_cert.is_some() => Trust::Authority,
        Tls::Disable | Tls::Prefer | Tls::Require => Trust::Anyone,
        Tls::VerifyCa => Trust::Authority,
        Tls::VerifyFull => Trust::AuthorityAndName,
    };
    let inner = match trust {
        Trust::Anyone => None,
        Trust::Authority | Trust::AuthorityAndName => {
            let roots = Arc::new(roots(options.root_cert.as_deref())?);
            let built =
                WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
            Some(built.map_err(|error| Error::Certificate {
                path: options.root_cert.clone().unwrap_or_default(),
                reason: error.to_string(),
            })?)
        }
    };
    Ok(Arc::new(Verifier { trust, inner, provider: Arc::clone(provider) }))
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    let certificates = match file {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    store.add_parsable_certificates(certificates);
    Ok(store)
}

fn open(path: &Path) -> Result<BufReader<File>, Error> {
    let reason = |error: std::io::Error| error.to_string();
    File::open(path)
        .map(BufReader::new)
        .map_err(|error| Error::Certificate { path: path.to_owned(), reason: reason(error) })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read: Result<Vec<_>, _> = rustls_pemfile::certs(&mut open(path)?).collect();
    match read {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Error::Certificate {
            path: path.to_owned(),
            reason: "it holds no PEM certificate".into(),
        }),
        Err(error) => Err(Error::Certificate { path: path.to_owned(), reason: error.to_string() }),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let reason = match rustls_pemfile::private_key(&mut open(path)?) {
        Ok(Some(key)) => return Ok(key),
        Ok(None) => "it holds no PEM key".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Error::Certificate { path: path.to_owned(), reason })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Anyone,
    Authority,
    AuthorityAndName,
}

/// Checks as much of the certificate as the mode asks for; signatures are always checked.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(inner) = &self.inner else {
            return Ok(ServerCertVerified::assertion());
        };
        let checked =
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match checked {
            // The name is looked at last, so a chain that fails only there is a good chain.
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.trust == Trust::Authority => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_holds_nothing_of_its_kind_is_said() {
        let scratch = tempfile::tempdir().expect("a directory");
        let file = scratch.path().join("it.pem");
        std::fs::write(&file, "neither the one nor the other").expect("a file");
        let name = format!("certificate file {}: ", file.display());
        let said = certificates(&file).expect_err("no certificate").to_string();
        assert_eq!(said.strip_prefix(&name), Some("it holds no PEM certificate"));
        let said = private_key(&file).expect_err("no key").to_string();
        assert_eq!(said.strip_prefix(&name), Some("it holds no PEM key"));
    }
}
