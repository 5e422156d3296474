//! Authentication after the startup message.

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;

use super::error::ReplicationError;
use super::options::ConnectOptions;
use super::wire::{Channel, Cursor, Message};

/// What the connection runs over.
pub(super) enum EndPoint {
    /// Anybody can read along.
    Plain,
    /// Encrypted; with the hash of the server's certificate for channel binding, where it has one.
    Tls(Option<Vec<u8>>),
}

/// Does what the server asks for until it is ready for a query.
pub(super) async fn authenticate(
    channel: &mut Channel,
    options: &ConnectOptions,
    end_point: &EndPoint,
) -> Result<(), ReplicationError> {
    loop {
        let message = channel.receive().await?;
        match message.tag {
            b'Z' => return Ok(()),
            b'K' => continue,
            b'R' => {}
            _ => return Err(channel.unexpected(&message, "start-up")),
        }
        let mut body = Cursor::new(&message.body);
        match body.i32() {
            Some(0) => {}
            Some(3) => {
                if matches!(end_point, EndPoint::Plain) {
                    return Err(ReplicationError::CleartextRefused {
                        peer: channel.peer.clone(),
                    });
                }
                send_password(channel, password(channel, options)?.as_bytes()).await?;
            }
            Some(5) => {
                let salt = body.rest().first_chunk::<4>().copied();
                let salt = salt.ok_or_else(|| channel.violation("an md5 request without salt"))?;
                let secret = password(channel, options)?;
                let hash = md5_hash(options.user.as_bytes(), secret.as_bytes(), salt);
                send_password(channel, hash.as_bytes()).await?;
            }
            Some(10) => scram(channel, options, end_point, &message).await?,
            other => {
                let method = match other {
                    Some(2) => "Kerberos V5".to_owned(),
                    Some(7 | 8) => "GSSAPI".to_owned(),
                    Some(9) => "SSPI".to_owned(),
                    Some(code) => format!("method {code}"),
                    None => return Err(channel.violation("an authentication request without a method")),
                };
                let peer = channel.peer.clone();
                return Err(ReplicationError::AuthenticationUnsupported { peer, method });
            }
        }
    }
}

fn password<'a>(channel: &Channel, options: &'a ConnectOptions) -> Result<&'a str, ReplicationError> {
    let missing = || ReplicationError::PasswordMissing {
        peer: channel.peer.clone(),
    };
    options
        .password
        .as_ref()
        .map(super::Password::reveal)
        .ok_or_else(missing)
}

async fn send_password(channel: &mut Channel, secret: &[u8]) -> Result<(), ReplicationError> {
    frontend::password_message(secret, &mut channel.output).map_err(|_| unsendable())?;
    channel.flush().await
}

fn unsendable() -> ReplicationError {
    ReplicationError::Options("the password holds a zero byte".to_owned())
}

async fn scram(
    channel: &mut Channel,
    options: &ConnectOptions,
    end_point: &EndPoint,
    request: &Message,
) -> Result<(), ReplicationError> {
    let mut offered = Vec::new();
    let mut body = Cursor::new(request.body.get(4..).unwrap_or_default());
    while let Some(mechanism) = body.cstr().filter(|mechanism| !mechanism.is_empty()) {
        offered.push(mechanism);
    }
    let offers = |mechanism: &str| offered.contains(&mechanism.as_bytes());
    // A server that does not offer the binding although we could do it is told so ("unrequested"): one that did offer
    // it then knows that somebody in between removed the offer.
    let (mechanism, binding) = match end_point {
        EndPoint::Tls(Some(hash)) if offers(SCRAM_SHA_256_PLUS) => (
            SCRAM_SHA_256_PLUS,
            ChannelBinding::tls_server_end_point(hash.clone()),
        ),
        EndPoint::Tls(Some(_)) if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        _ if offers(SCRAM_SHA_256) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        _ => {
            let names: Vec<_> = offered.iter().map(|name| String::from_utf8_lossy(name)).collect();
            let method = format!("SASL with {}", names.join(", "));
            let peer = channel.peer.clone();
            return Err(ReplicationError::AuthenticationUnsupported { peer, method });
        }
    };
    let peer = channel.peer.clone();
    let failed = |source| ReplicationError::Scram {
        peer: peer.clone(),
        source,
    };

    let mut exchange = ScramSha256::new(password(channel, options)?.as_bytes(), binding);
    frontend::sasl_initial_response(mechanism, exchange.message(), &mut channel.output)
        .map_err(|_| unsendable())?;
    channel.flush().await?;

    exchange.update(&sasl_step(channel, 11).await?).map_err(failed)?;
    frontend::sasl_response(exchange.message(), &mut channel.output).map_err(|_| unsendable())?;
    channel.flush().await?;

    exchange.finish(&sasl_step(channel, 12).await?).map_err(failed)
}

/// The payload of the server's next step.
async fn sasl_step(channel: &mut Channel, step: i32) -> Result<Vec<u8>, ReplicationError> {
    let message = channel.receive().await?;
    if message.tag != b'R' {
        return Err(channel.unexpected(&message, "start-up"));
    }
    let mut body = Cursor::new(&message.body);
    if body.i32() == Some(step) {
        Ok(body.rest().to_vec())
    } else {
        Err(channel.violation("a step of SASL that was not due"))
    }
}
