//! The walsender client.
