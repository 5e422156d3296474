//! What an error of `object_store` means.

use object_store::Error;

use crate::error::StoreError;
use crate::retry::Failed;

/// What is known about the object an operation was about.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) action: &'static str,
    pub(crate) location: &'a str,
    pub(crate) bucket: &'a str,
    pub(crate) endpoint: &'a str,
}

/// Decides whether the operation is worth another attempt.
pub(crate) fn classify(error: &Error, subject: Subject<'_>) -> Failed {
    let text = chain(error);
    let location = subject.location.to_owned();
    let action = subject.action;
    let denied = |detail| {
        Failed::Final(StoreError::Denied {
            action,
            location: location.clone(),
            detail,
        })
    };
    if let Some(code) = between(&text, "<Code>", "</Code>") {
        let detail = match between(&text, "<Message>", "</Message>") {
            Some(message) if !message.is_empty() => format!("{code}: {message}"),
            _ => code.to_owned(),
        };
        match code {
            "NoSuchBucket" => {
                let (bucket, endpoint) = (subject.bucket.to_owned(), subject.endpoint.to_owned());
                return Failed::Final(StoreError::BucketNotFound { bucket, endpoint });
            }
            "NoSuchKey" | "NotFound" => return Failed::Final(StoreError::NotFound { location }),
            // Expired tokens are renewed, skewed clocks are not; an upload that is gone cannot be continued.
            "AccessDenied"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "AuthorizationHeaderMalformed"
            | "InvalidToken"
            | "ExpiredToken"
            | "AllAccessDisabled"
            | "AccountProblem"
            | "RequestTimeTooSkewed" => {
                return denied(detail);
            }
            "ConditionalRequestConflict"
            | "OperationAborted"
            | "SlowDown"
            | "InternalError"
            | "RequestTimeout"
            | "ServiceUnavailable"
            | "BadDigest"
            | "XAmzContentSHA256Mismatch"
            | "IncompleteBody" => return Failed::Retry(detail),
            "PreconditionFailed" => {}
            "NotImplemented" => {
                return Failed::Final(StoreError::Rejected {
                    action,
                    location,
                    detail,
                });
            }
            _ if matches!(between(&text, "status code: ", " "), Some("401" | "403")) => {
                return denied(detail);
            }
            _ if !is_server_side(&text) => {
                return Failed::Final(StoreError::Rejected {
                    action,
                    location,
                    detail,
                });
            }
            _ => return Failed::Retry(detail),
        }
    }
    match error {
        Error::NotFound { .. } => Failed::Final(StoreError::NotFound { location }),
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => denied(brief(&text)),
        Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            Failed::Final(StoreError::Rejected {
                action,
                location,
                detail: brief(&text),
            })
        }
        // A directory store reports its I/O errors as generic ones.
        _ => match io_kind(error) {
            Some(std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem) => {
                denied(brief(&text))
            }
            _ => Failed::Retry(brief(&text)),
        },
    }
}

/// Whether the object existed already where it must not.
pub(crate) fn is_existing(error: &Error) -> bool {
    let busy = |e: &Error| {
        let text = chain(e);
        text.contains("ConditionalRequestConflict") || text.contains("OperationAborted")
    };
    matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. }) && !busy(error)
}

/// Whether the server does not know conditional writes.
pub(crate) fn is_unconditional(error: &Error) -> bool {
    let text = chain(error);
    matches!(error, Error::NotImplemented { .. })
        || text.contains("<Code>NotImplemented</Code>")
        || text.contains("501 Not Implemented")
}

fn is_server_side(text: &str) -> bool {
    between(text, "status code: ", " ").is_none_or(|status| status.starts_with('5') || status == "429")
}

fn io_kind(error: &Error) -> Option<std::io::ErrorKind> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        source = error.source();
    }
    None
}

fn chain(error: &Error) -> String {
    use std::fmt::Write;
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let part = error.to_string();
        if !text.contains(&part) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {part}");
        }
        source = error.source();
    }
    text
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let from = text.find(start)? + start.len();
    let to = text[from..].find(end)?;
    Some(text[from..from + to].trim())
}

fn brief(text: &str) -> String {
    // What the library says in front repeats the request, which the location tells better.
    let text = text
        .split_once(" - HTTP error: ")
        .map_or(text, |(_, cause)| cause);
    let line = text.replace(['\n', '\r'], " ");
    match line.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject<'static> {
        Subject {
            action: "put",
            location: "s3://pg/a",
            bucket: "pg",
            endpoint: "http://s3",
        }
    }

    fn generic(text: &str) -> Error {
        Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    fn outcome(text: &str) -> String {
        match classify(&generic(text), subject()) {
            Failed::Final(error) => error.to_string(),
            Failed::Retry(detail) => format!("retry: {detail}"),
        }
    }

    #[test]
    fn answers_of_servers_name_the_object() {
        let body = |status: &str, code: &str| {
            format!("non-2xx status code: {status}: <Error><Code>{code}</Code><Message>why</Message></Error>")
        };
        assert_eq!(
            outcome(&body("404 Not Found", "NoSuchBucket")),
            "bucket \"pg\" does not exist at http://s3"
        );
        assert_eq!(
            outcome(&body("403 Forbidden", "InvalidAccessKeyId")),
            "put s3://pg/a: refused: InvalidAccessKeyId: why"
        );
        assert_eq!(outcome(&body("503 Slow", "SlowDown")), "retry: SlowDown: why");
        assert_eq!(outcome(&body("500 Internal", "Whatever")), "retry: Whatever: why");
        assert_eq!(
            outcome(&body("400 Bad Request", "InvalidArgument")),
            "put s3://pg/a: rejected: InvalidArgument: why"
        );
        assert_eq!(
            outcome("connection refused"),
            "retry: Generic S3 error: connection refused"
        );
    }
}
