//! TLS: asking for it, checking the certificate as the ssl mode says, and its hash for channel binding.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::error::{Peer, ReplicationError};
use super::options::{ConnectOptions, SslMode};
use super::wire::Socket;

/// How a connection goes on after asking for TLS.
pub(super) enum Negotiated {
    /// Encrypted, with the hash of the server's certificate where channel binding is possible.
    Tls(Box<dyn Socket>, Option<Vec<u8>>),
    /// The server has no TLS, and the ssl mode does not insist.
    Plain(TcpStream),
}

/// The configuration that the ssl mode asks for; none when TLS is not wanted.
pub(super) fn configuration(options: &ConnectOptions) -> Result<Option<Arc<ClientConfig>>, ReplicationError> {
    if options.ssl_mode == SslMode::Disable {
        return Ok(None);
    }
    let wrong = |what: String| ReplicationError::Options(format!("tls: {what}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = match options.ssl_mode {
        SslMode::VerifyCa | SslMode::VerifyFull => {
            let pem = options.root_certificates.as_ref();
            let pem = pem.ok_or_else(|| wrong(format!("{} needs root certificates", options.ssl_mode)))?;
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate =
                    certificate.map_err(|error| wrong(format!("root certificates: {error}")))?;
                roots
                    .add(certificate)
                    .map_err(|error| wrong(format!("root certificates: {error}")))?;
            }
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            Some(verifier.build().map_err(|error| wrong(error.to_string()))?)
        }
        SslMode::Disable | SslMode::Prefer | SslMode::Require => None,
    };
    let verifier = Verifier {
        roots,
        name: options.ssl_mode == SslMode::VerifyFull,
        provider: Arc::clone(&provider),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Some(Arc::new(config)))
}

/// Asks the server for TLS and, when it agrees, shakes hands.
pub(super) async fn negotiate(
    mut stream: TcpStream,
    config: Arc<ClientConfig>,
    options: &ConnectOptions,
    peer: &Peer,
) -> Result<Negotiated, ReplicationError> {
    let mut request = bytes::BytesMut::new();
    postgres_protocol::message::frontend::ssl_request(&mut request);
    let broke = |source| ReplicationError::Io {
        peer: peer.clone(),
        source,
    };
    stream.write_all(&request).await.map_err(broke)?;
    // One byte and no more: anything behind it would be plain text that somebody slipped in before the handshake.
    let mut answer = [0];
    if stream.read(&mut answer).await.map_err(broke)? == 0 {
        return Err(ReplicationError::Closed { peer: peer.clone() });
    }
    match answer[0] {
        b'S' => {}
        b'N' if options.ssl_mode.insists() => {
            return Err(ReplicationError::TlsUnavailable { peer: peer.clone() });
        }
        b'N' => return Ok(Negotiated::Plain(stream)),
        other => {
            let what = format!("answer {:?} to the request for tls", char::from(other));
            return Err(ReplicationError::Protocol {
                peer: peer.clone(),
                what,
            });
        }
    }
    let name = ServerName::try_from(options.host.clone())
        .map_err(|_| ReplicationError::Options(format!("{:?} is no host name", options.host)))?;
    let stream = TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|source| ReplicationError::Tls {
            peer: peer.clone(),
            source,
        })?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let hash = certificates
        .first()
        .and_then(|certificate| end_point_hash(certificate));
    Ok(Negotiated::Tls(Box::new(stream), hash))
}

/// Checks the chain, the chain and the name, or only that the server holds the key of its certificate.
#[derive(Debug)]
struct Verifier {
    roots: Option<Arc<WebPkiServerVerifier>>,
    name: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Without a trusted root, a certificate that the library cannot read is as good as any other: the instructions in
    /// PostgreSQL's manual make X.509 version 1 certificates, which it does not read.
    fn lenient(
        &self,
        result: Result<HandshakeSignatureValid, rustls::Error>,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match result {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::BadEncoding | CertificateError::Other(_),
            )) if self.roots.is_none() => Ok(HandshakeSignatureValid::assertion()),
            other => other,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(roots) = &self.roots else {
            return Ok(ServerCertVerified::assertion());
        };
        match roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain has been checked before the name.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.lenient(rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            algorithms,
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.lenient(rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            algorithms,
        ))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The hash of RFC 5929's `tls-server-end-point`: that of the certificate's own signature, SHA-256 in place of MD5 and
/// SHA-1. None where the signature has no hash of its own (Ed25519) or names it elsewhere (RSA-PSS).
fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let (certificate_body, _) = der_value(certificate, 0x30)?;
    let (_, rest) = der_value(certificate_body, 0x30)?;
    let (algorithm, _) = der_value(rest, 0x30)?;
    let (oid, _) = der_value(algorithm, 0x06)?;
    match oid {
        // md5, sha1 and sha256 WithRSAEncryption; ecdsa-with-SHA1 and -SHA256.
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 4 | 5 | 11]
        | [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 1]
        | [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 2] => Some(Sha256::digest(certificate).to_vec()),
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 12] | [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 3] => {
            Some(Sha384::digest(certificate).to_vec())
        }
        [0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 13] | [0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 4] => {
            Some(Sha512::digest(certificate).to_vec())
        }
        _ => None,
    }
}

/// The value of the first element of a DER sequence, which must have this tag, and what follows it.
fn der_value(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = input.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let (digits, rest) = rest
            .split_at_checked(usize::from(length & 0x7F))
            .filter(|(d, _)| d.len() <= 4)?;
        (
            digits.iter().fold(0, |sum, &digit| sum << 8 | usize::from(digit)),
            rest,
        )
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verification_needs_root_certificates() {
        let mut options = ConnectOptions::new("db", "standby");
        for mode in [SslMode::VerifyCa, SslMode::VerifyFull] {
            options.ssl_mode = mode;
            let error = configuration(&options).unwrap_err().to_string();
            assert!(error.contains("needs root certificates"), "{error}");
        }
        options.ssl_mode = SslMode::Require;
        assert!(configuration(&options).unwrap().is_some());
        options.ssl_mode = SslMode::Disable;
        assert!(configuration(&options).unwrap().is_none());
    }

    #[test]
    fn the_hash_follows_the_signature_of_the_certificate() {
        let certificate = |last: u8| {
            let mut oid = vec![0x06, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, last];
            let mut algorithm = vec![0x30, 13];
            algorithm.append(&mut oid);
            algorithm.extend([5, 0]);
            // A body with a length of two bytes in front of it.
            let mut body = vec![0x30, 0x82, 1, 0];
            body.extend([7; 256]);
            body.extend(algorithm);
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            [&[0x30, 0x82, length[0], length[1]], body.as_slice()].concat()
        };
        let lengths =
            [5, 11, 12, 13, 10].map(|last| end_point_hash(&certificate(last)).map(|hash| hash.len()));
        assert_eq!(lengths, [Some(32), Some(32), Some(48), Some(64), None]);
        assert_eq!(end_point_hash(&[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF]), None);
        assert_eq!(end_point_hash(&[]), None);
    }
}
