//! What can go wrong between this client and a server.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use holdfast_fault::{Class, Fault};

use super::wire::Cursor;

/// The server and the user of a connection, as errors name them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    host: Arc<str>,
    port: u16,
    user: Arc<str>,
}

impl Peer {
    pub(super) fn new(host: &str, port: u16, user: &str) -> Self {
        Self {
            host: host.into(),
            port,
            user: user.into(),
        }
    }

    /// Name or address of the server, as it was given.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port of the server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The role that connects.
    pub fn user(&self) -> &str {
        &self.user
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// An error that the server reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL` or `PANIC`, never translated.
    pub severity: String,
    /// The five characters of the SQLSTATE, for example `28P01`.
    pub code: String,
    /// The primary message, in the server's language.
    pub message: String,
    /// More about it, where the server says more.
    pub detail: Option<String>,
    /// What to do about it, where the server knows.
    pub hint: Option<String>,
}

impl ServerError {
    /// Reads the fields of an ErrorResponse or NoticeResponse; unknown ones are skipped.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut fields = Cursor::new(body);
        let (mut severity, mut localized) = (None, None);
        let (mut code, mut message, mut detail, mut hint) = (None, None, None, None);
        loop {
            let kind = fields.u8()?;
            if kind == 0 {
                break;
            }
            let text = Some(String::from_utf8_lossy(fields.cstr()?).into_owned());
            match kind {
                b'V' => severity = text,
                b'S' => localized = text,
                b'C' => code = text,
                b'M' => message = text,
                b'D' => detail = text,
                b'H' => hint = text,
                _ => {}
            }
        }
        Some(Self {
            severity: severity.or(localized)?,
            code: code?,
            message: message?,
            detail,
            hint,
        })
    }

    /// Whether the server ends the connection with this error.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// Whether the server refuses this user: authentication failed, no entry in pg_hba.conf, or missing rights.
    pub fn is_denied(&self) -> bool {
        self.code.starts_with("28") || self.code == "42501"
    }

    fn class(&self) -> Class {
        match self.code.as_str() {
            _ if self.is_denied() => Class::Denied,
            "42710" => Class::Conflict,
            // Features, syntax and parameters that this server will never take.
            code if code.starts_with("0A") || code.starts_with("22") || code.starts_with("42") => {
                Class::Invalid
            }
            // A damaged page stays damaged.
            "XX001" | "XX002" => Class::Invalid,
            // Everything else (08, 53, 55, 57, 58, XX) is the server's present state, which passes.
            _ => Class::Transient,
        }
    }

    fn reason(&self) -> &'static str {
        match self.code.as_str() {
            "28P01" | "28000" => "AuthenticationFailed",
            "42501" => "InsufficientPrivilege",
            "53300" => "TooManyConnections",
            "53400" => "TooManyReplicationSlots",
            "53100" => "ServerDiskFull",
            "42710" | "55006" => "ReplicationSlotInUse",
            "57P01" | "57P02" => "ServerShutDown",
            "57P03" => "ServerStarting",
            "58P01" => "ServerFileMissing",
            "XX001" | "XX002" => "DataCorrupted",
            _ => "ServerError",
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (SQLSTATE {}", self.severity, self.message, self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        f.write_str(")")
    }
}

/// What can go wrong between this client and a server. No message contains a password.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// An argument that no server would take.
    #[error("{0}")]
    Options(String),
    /// The host's name leads nowhere.
    #[error("cannot resolve the name of {peer}: {source}")]
    Resolve {
        /// The server.
        peer: Peer,
        /// Why not.
        source: io::Error,
    },
    /// No TCP connection.
    #[error("cannot connect to {peer}: {source}")]
    Connect {
        /// The server.
        peer: Peer,
        /// Why not.
        source: io::Error,
    },
    /// Connecting, TLS and authentication together took too long.
    #[error("no connection to {peer} within {} s", .after.as_secs_f32())]
    ConnectTimeout {
        /// The server.
        peer: Peer,
        /// The limit.
        after: Duration,
    },
    /// The ssl mode asks for TLS and the server has none.
    #[error("{peer} does not offer TLS, which the ssl mode asks for")]
    TlsUnavailable {
        /// The server.
        peer: Peer,
    },
    /// The TLS handshake failed, for example because of the certificate.
    #[error("tls with {peer} failed: {source}")]
    Tls {
        /// The server.
        peer: Peer,
        /// Why.
        source: io::Error,
    },
    /// The server refuses this user.
    #[error("{peer} refuses user \"{}\": {error}", .peer.user())]
    Refused {
        /// The server and the user.
        peer: Peer,
        /// What the server said.
        error: Box<ServerError>,
    },
    /// The server asks for a password, and there is none.
    #[error("{peer} asks for a password of user \"{}\", and none is configured", .peer.user())]
    PasswordMissing {
        /// The server and the user.
        peer: Peer,
    },
    /// The server asks for the bare password over a connection that anybody could read.
    #[error("{peer} asks for the password of user \"{}\" in clear text without tls; not sent", .peer.user())]
    CleartextRefused {
        /// The server and the user.
        peer: Peer,
    },
    /// The server did not prove that it knows the password.
    #[error("the scram exchange with {peer} for user \"{}\" failed: {source}", .peer.user())]
    Scram {
        /// The server and the user.
        peer: Peer,
        /// Why.
        source: io::Error,
    },
    /// A way to authenticate that this client does not know.
    #[error("{peer} asks user \"{}\" to authenticate by {method}, which is not supported", .peer.user())]
    AuthenticationUnsupported {
        /// The server and the user.
        peer: Peer,
        /// What the server asks for.
        method: String,
    },
    /// The server is too old.
    #[error("{peer} is PostgreSQL {version}; physical replication is supported from PostgreSQL 15 on")]
    UnsupportedVersion {
        /// The server.
        peer: Peer,
        /// Its version, as it says it.
        version: String,
    },
    /// The server reported an error.
    #[error("{command} at {peer} failed: {error}")]
    Server {
        /// The server.
        peer: Peer,
        /// The command of the replication protocol.
        command: &'static str,
        /// What the server said.
        error: Box<ServerError>,
    },
    /// No byte moved for too long.
    #[error("{peer} has been silent for {} s", .after.as_secs_f32())]
    Idle {
        /// The server.
        peer: Peer,
        /// The limit.
        after: Duration,
    },
    /// The server closed the connection without a word.
    #[error("{peer} closed the connection")]
    Closed {
        /// The server.
        peer: Peer,
    },
    /// The server stopped streaming because it shuts down.
    #[error("{peer} is shutting down")]
    ShuttingDown {
        /// The server.
        peer: Peer,
    },
    /// The connection broke.
    #[error("the connection to {peer} broke: {source}")]
    Io {
        /// The server.
        peer: Peer,
        /// How.
        source: io::Error,
    },
    /// The server said something that the protocol does not allow at this place.
    #[error("{peer} broke the protocol: {what}")]
    Protocol {
        /// The server.
        peer: Peer,
        /// What it said.
        what: String,
    },
    /// A command was used after the future of an earlier one had been dropped half-way, or after an error.
    #[error("the connection to {peer} is no longer usable: an earlier command did not end")]
    Abandoned {
        /// The server.
        peer: Peer,
    },
}

impl ReplicationError {
    /// The server's error, where it reported one.
    pub fn server_error(&self) -> Option<&ServerError> {
        match self {
            Self::Refused { error, .. } | Self::Server { error, .. } => Some(error),
            _ => None,
        }
    }

    /// The SQLSTATE, where the server reported an error.
    pub fn sqlstate(&self) -> Option<&str> {
        self.server_error().map(|error| error.code.as_str())
    }

    /// Whether the server denied a right, for example to read a setting.
    pub fn is_permission_denied(&self) -> bool {
        self.sqlstate() == Some("42501")
    }
}

impl Fault for ReplicationError {
    fn class(&self) -> Class {
        match self {
            Self::Options(_)
            | Self::TlsUnavailable { .. }
            | Self::AuthenticationUnsupported { .. }
            | Self::UnsupportedVersion { .. }
            | Self::Abandoned { .. } => Class::Invalid,
            // The handshake reports a wrong certificate as invalid data; anything else is the network.
            Self::Tls { source, .. } if source.kind() != io::ErrorKind::InvalidData => Class::Transient,
            Self::Tls { .. }
            | Self::Refused { .. }
            | Self::PasswordMissing { .. }
            | Self::CleartextRefused { .. }
            | Self::Scram { .. } => Class::Denied,
            Self::Server { error, .. } => error.class(),
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Idle { .. }
            | Self::Closed { .. }
            | Self::ShuttingDown { .. }
            | Self::Io { .. }
            | Self::Protocol { .. } => Class::Transient,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Options(_) => "InvalidOptions",
            Self::Resolve { .. } => "HostUnknown",
            Self::Connect { .. } => "ConnectFailed",
            Self::ConnectTimeout { .. } => "ConnectTimedOut",
            Self::TlsUnavailable { .. } => "TlsUnavailable",
            Self::Tls { .. } => "TlsFailed",
            Self::Refused { error, .. } | Self::Server { error, .. } => error.reason(),
            Self::PasswordMissing { .. } => "PasswordMissing",
            Self::CleartextRefused { .. } => "CleartextPasswordRefused",
            Self::Scram { .. } => "AuthenticationFailed",
            Self::AuthenticationUnsupported { .. } => "AuthenticationUnsupported",
            Self::UnsupportedVersion { .. } => "UnsupportedVersion",
            Self::Idle { .. } => "ServerSilent",
            Self::Closed { .. } | Self::Io { .. } => "ConnectionLost",
            Self::ShuttingDown { .. } => "ServerShutDown",
            Self::Protocol { .. } => "ProtocolViolation",
            Self::Abandoned { .. } => "ConnectionAbandoned",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> ServerError {
        let body = format!("SFATAL\0VFATAL\0C{code}\0Msorry\0Dbecause\0Htry\0Fauth.c\0\0");
        ServerError::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn fields_are_read_and_unknown_ones_skipped() {
        let error = refused("28P01");
        assert!(error.is_fatal() && error.is_denied());
        assert_eq!(error.to_string(), "FATAL: sorry (SQLSTATE 28P01; because; try)");
        assert_eq!(ServerError::parse(b"SFATAL\0C28P01"), None);
        assert_eq!(ServerError::parse(b"\0"), None);
    }

    #[test]
    fn sqlstates_have_the_class_a_caller_should_act_upon() {
        for (code, class, reason) in [
            ("28P01", Class::Denied, "AuthenticationFailed"),
            ("28000", Class::Denied, "AuthenticationFailed"),
            ("42501", Class::Denied, "InsufficientPrivilege"),
            ("53300", Class::Transient, "TooManyConnections"),
            ("57P03", Class::Transient, "ServerStarting"),
            ("57P01", Class::Transient, "ServerShutDown"),
            ("55000", Class::Transient, "ServerError"),
            ("58P01", Class::Transient, "ServerFileMissing"),
            ("42710", Class::Conflict, "ReplicationSlotInUse"),
            ("42601", Class::Invalid, "ServerError"),
            ("XX001", Class::Invalid, "DataCorrupted"),
        ] {
            let error = ReplicationError::Server {
                peer: Peer::new("db", 5432, "standby"),
                command: "BASE_BACKUP",
                error: Box::new(refused(code)),
            };
            assert_eq!((error.class(), error.reason()), (class, reason), "{code}");
        }
    }

    #[test]
    fn a_refusal_names_server_and_user() {
        let peer = Peer::new("fd00::1", 5433, "standby");
        let error = ReplicationError::Refused {
            peer,
            error: Box::new(refused("28000")),
        };
        assert_eq!(
            error.to_string(),
            "[fd00::1]:5433 refuses user \"standby\": FATAL: sorry (SQLSTATE 28000; because; try)"
        );
        assert_eq!(error.class(), Class::Denied);
    }
}
