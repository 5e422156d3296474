//! Certificates and keys for a control plane of our own.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A certificate or public key and its private key, both PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate, or the public key.
    pub public: String,
    /// The private key (PKCS #8).
    pub private: String,
}

/// A certificate authority that lives as long as one cluster.
pub struct Authority {
    /// The authority's own certificate, PEM.
    pub certificate: String,
    /// The same, DER.
    pub der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority. Fails only when the system has no randomness.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "holdfast-test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::CrlSign,
        ];
        let certificate = params
            .self_signed(&key)
            .context("cannot sign the authority's certificate")?;
        Ok(Self {
            certificate: certificate.pem(),
            der: certificate.der().to_vec(),
            issuer: Issuer::new(params, key),
        })
    }

    /// A server's certificate for these DNS names and IP addresses.
    pub fn server(&self, names: &[&str]) -> Result<Pair> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).context("a name that no certificate can carry")?;
        params
            .distinguished_name
            .push(DnType::CommonName, "holdfast-test-server");
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate: Kubernetes reads the user from `user` and one group from `group`.
    pub fn client(&self, user: &str, group: &str) -> Result<Pair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Pair> {
        let key = KeyPair::generate().context("cannot make a key")?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let certificate = params
            .signed_by(&key, &self.issuer)
            .context("cannot sign a certificate")?;
        Ok(Pair {
            public: certificate.pem(),
            private: key.serialize_pem(),
        })
    }
}

/// A key pair that signs ServiceAccount tokens.
pub fn signing_key() -> Result<Pair> {
    let key = KeyPair::generate().context("cannot make a key")?;
    Ok(Pair {
        public: key.public_key_pem(),
        private: key.serialize_pem(),
    })
}

/// A random string of 32 hexadecimal digits, good as a password or token.
pub fn random_token() -> Result<String> {
    use std::io::Read as _;
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("/dev/urandom")?;
    Ok(crate::parts::hex(&bytes))
}
