//! How to reach a server.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// A password that does not show in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The password itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(password: String) -> Self {
        Self(password)
    }
}

impl From<&str> for Password {
    fn from(password: &str) -> Self {
        Self(password.to_owned())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

/// Whether the connection is encrypted and the server's certificate checked; the words are libpq's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display, strum::EnumString)]
#[strum(serialize_all = "kebab-case")]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted when the server can; the certificate is not checked.
    #[default]
    Prefer,
    /// Encrypted, or no connection; the certificate is not checked (Spilo's are self-signed).
    Require,
    /// Encrypted, and the certificate must come from [`ConnectOptions::root_certificates`].
    VerifyCa,
    /// As [`SslMode::VerifyCa`], and the certificate must name [`ConnectOptions::host`].
    VerifyFull,
}

/// Where a server is and who asks.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Name or address of the server.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// A role with the `REPLICATION` attribute.
    pub user: String,
    /// None suffices where pg_hba.conf says `trust`.
    pub password: Option<Password>,
    /// Encryption.
    pub ssl_mode: SslMode,
    /// Certificates in PEM form that [`SslMode::VerifyCa`] and [`SslMode::VerifyFull`] trust.
    pub root_certificates: Option<Bytes>,
    /// What `pg_stat_replication.application_name` shows.
    pub application_name: String,
    /// Bounds resolving the name, connecting, TLS and authentication together.
    pub connect_timeout: Duration,
    /// Bounds each wait for a byte from the server, and each wait for it to take one.
    pub idle_timeout: Duration,
}

impl ConnectOptions {
    /// Options with the defaults: port 5432, no password, [`SslMode::Prefer`], 30 s to connect, 60 s idle.
    pub fn new(host: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: 5432,
            user: user.into(),
            password: None,
            ssl_mode: SslMode::default(),
            root_certificates: None,
            application_name: "holdfast".to_owned(),
            connect_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_mins(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ConnectOptions, SslMode};

    #[test]
    fn debug_output_does_not_show_the_password() {
        let mut options = ConnectOptions::new("db", "standby");
        options.password = Some("hunter2".into());
        let shown = format!("{options:?}");
        assert!(shown.contains("standby") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn ssl_modes_have_the_words_of_libpq() {
        for (text, mode) in [
            ("disable", SslMode::Disable),
            ("prefer", SslMode::Prefer),
            ("require", SslMode::Require),
            ("verify-ca", SslMode::VerifyCa),
            ("verify-full", SslMode::VerifyFull),
        ] {
            assert_eq!(text.parse(), Ok(mode));
            assert_eq!(mode.to_string(), text);
        }
    }
}
