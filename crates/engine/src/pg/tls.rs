//! TLS to a server, as `sslmode` asks for it.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::reach::Route;
use crate::{Error, ErrorKind, Result};

/// Whose certificate is good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Anyone's: it only keeps others from listening.
    Anyone,
    /// One that a known authority signed, whatever its name (`verify-ca`).
    Authority,
    /// One of that name (`verify-full`).
    Name,
}

impl Trust {
    /// What a `sslmode` asks for; `None` where it is none.
    pub(super) fn of(mode: &str) -> Option<Self> {
        match mode {
            "disable" | "allow" | "prefer" | "require" => Some(Self::Anyone),
            "verify-ca" => Some(Self::Authority),
            "verify-full" => Some(Self::Name),
            _ => None,
        }
    }
}

/// What connects by TLS on `route`.
///
/// # Errors
/// When certificates that it takes cannot be read.
pub(super) fn connector(route: &Route) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let failed = |error: rustls::Error| Error::new(ErrorKind::Failed, format!("TLS cannot be set up: {error}"));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let builder = match route.trust() {
        Trust::Anyone => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier { provider, roots: None }))
        }
        Trust::Authority => {
            let roots = Some(roots(route)?);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier { provider, roots }))
        }
        Trust::Name => {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(route)?), provider).build();
            let verifier = verifier.map_err(|error| Error::new(ErrorKind::Failed, error.to_string()))?;
            builder.with_webpki_verifier(verifier)
        }
    };
    let config = match (route.keyword("sslcert"), route.keyword("sslkey")) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(Path::new(certificate))?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(Path::new(key), &error))?;
            builder.with_client_auth_cert(chain, key).map_err(failed)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(config))
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Failed, format!("{} cannot be used: {why}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.map_err(|error| unreadable(path, &error))
}

/// The authorities that are trusted: those of `sslrootcert`, else the system's.
fn roots(route: &Route) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = match route.keyword("sslrootcert").filter(|path| *path != "system") {
        Some(path) => certificates(Path::new(path))?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(found);
    Ok(roots)
}

/// Looks less closely than rustls does.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None`: any certificate does.
    roots: Option<RootCertStore>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
