//! TLS with the servers that mail goes on to.
//!
//! Sources: RFC 3207, postconf(5) `smtp_tls_security_level`. `may` and `encrypt` do not
//! authenticate the server: they keep out listeners, not impostors.

use mailstow_engine::config::TlsLevel;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// How TLS is used with the servers of one protocol.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) level: TlsLevel,
    connector: Option<TlsConnector>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.level).finish()
    }
}

impl Tls {
    /// Reads the certificates that `level` needs; those of the system when `ca_file` is empty.
    ///
    /// # Errors
    /// They cannot be read, or there are none. Says what and the remedy.
    pub(super) fn new(level: TlsLevel, ca_file: &Path) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let config = match level {
            TlsLevel::None => {
                return Ok(Self {
                    level,
                    connector: None,
                });
            }
            TlsLevel::May | TlsLevel::Encrypt => builder(&provider)?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyServer(Arc::clone(&provider))))
                .with_no_client_auth(),
            TlsLevel::Verify => builder(&provider)?
                .with_root_certificates(roots(ca_file)?)
                .with_no_client_auth(),
        };
        Ok(Self {
            level,
            connector: Some(TlsConnector::from(Arc::new(config))),
        })
    }

    /// Returns what negotiates TLS.
    pub(super) fn connector(&self) -> Option<&TlsConnector> {
        self.connector.as_ref()
    }
}

type Builder =
    tokio_rustls::rustls::ConfigBuilder<ClientConfig, tokio_rustls::rustls::WantsVerifier>;

fn builder(provider: &Arc<CryptoProvider>) -> Result<Builder, String> {
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be used: {error}"))
}

fn roots(ca_file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (added, remedy) = if ca_file.as_os_str().is_empty() {
        let found = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        (
            added,
            "install the package ca-certificates, or set tls_ca_file",
        )
    } else {
        let wrong = |error: &dyn std::fmt::Display| {
            let file = ca_file.display();
            format!("tls_ca_file {file}: {error}; name a file of PEM certificates")
        };
        let read = CertificateDer::pem_file_iter(ca_file).map_err(|error| wrong(&error))?;
        let certificates: Result<Vec<_>, _> = read.collect();
        let certificates = certificates.map_err(|error| wrong(&error))?;
        let (added, _) = roots.add_parsable_certificates(certificates);
        (added, "put PEM certificates into tls_ca_file")
    };
    match added {
        0 => Err(format!(
            "tls security level verify: there is no certificate to verify servers by; {remedy}"
        )),
        _ => Ok(roots),
    }
}

/// Takes whatever certificate a server shows, and has it prove that it holds its key.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
