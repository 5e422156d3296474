//! What an error of `object_store` means.

use object_store::Error;

use crate::error::StoreError;
use crate::retry::Failed;

/// What the library writes before the status of an answer, and in place of it.
const STATUS: &str = "non-2xx status code: ";
const REDIRECT: &str = "Received redirect without LOCATION";

/// What it writes when a request got no answer; also because another one failed that was to fetch credentials.
const NO_ANSWER: &str = " - HTTP error: ";

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
            | "Throttling"
            | "ThrottlingException"
            | "RequestThrottled"
            | "RequestLimitExceeded"
            | "BandwidthLimitExceeded"
            | "PriorRequestNotComplete"
            | "InternalError"
            | "RequestTimeout"
            | "RequestTimeoutException"
            | "ServiceUnavailable"
            | "BadDigest"
            | "XAmzContentSHA256Mismatch"
            | "IncompleteBody" => return Failed::Retry(detail),
            _ if matches!(status(&text), Some(401 | 403)) => return denied(detail),
            _ if code == "NotImplemented" || status(&text).is_some_and(|status| !may_pass(status)) => {
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
            _ => match refusal(&text) {
                None => Failed::Retry(brief(&text)),
                Some(answer) => Failed::Final(StoreError::Rejected {
                    action,
                    location,
                    detail: unexplained(answer, subject),
                }),
            },
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

/// The HTTP status of the answer, if there was one.
fn status(text: &str) -> Option<u16> {
    between(text, STATUS, " ")?.parse().ok()
}

/// Whether the same request may fare better later, though nothing in the answer says why it failed.
fn may_pass(status: u16) -> bool {
    // Request timeout, too early, too many requests; S3 sends elsewhere for a while after a bucket was made.
    status >= 500 || matches!(status, 307 | 408 | 425 | 429)
}

/// An answer without a code of S3 that will be the same next time.
fn refusal(text: &str) -> Option<&str> {
    if text.contains(NO_ANSWER) {
        return None;
    }
    if text.contains(REDIRECT) {
        return Some("redirect without location");
    }
    let (_, answer) = text.split_once(STATUS)?;
    // What is in the way may go: a conflict with another writer.
    let refused = |status| !may_pass(status) && !matches!(status, 409 | 412);
    let is_refused = status(text).is_some_and(refused);
    is_refused.then(|| answer.trim_end_matches(": "))
}

/// What to do about an answer that does not say why. Those to HEAD never do: they have no body.
fn unexplained(answer: &str, subject: Subject<'_>) -> String {
    format!(
        "{}, and the server does not say why; check the name of the bucket ({}), its region, the endpoint ({}), and whether \
         the credentials have expired",
        shortened(answer),
        subject.bucket,
        subject.endpoint
    )
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
    let text = text.split_once(NO_ANSWER).map_or(text, |(_, cause)| cause);
    shortened(text)
}

fn shortened(text: &str) -> String {
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
            outcome(&body("400 Bad Request", "RequestTimeout")),
            "retry: RequestTimeout: why"
        );
        assert_eq!(
            outcome(&body("412 Precondition Failed", "PreconditionFailed")),
            "put s3://pg/a: rejected: PreconditionFailed: why"
        );
        assert_eq!(
            outcome("connection refused"),
            "retry: Generic S3 error: connection refused"
        );
    }

    /// Answers to HEAD have no body, and those of proxies have one that is not of S3.
    #[test]
    fn an_answer_without_a_code_is_final_unless_its_status_passes() {
        let head = |status: &str| {
            outcome(&format!(
                "Error performing HEAD http://s3/pg/a in 1ms - Server returned non-2xx status code: {status}: "
            ))
        };
        let advice = "and the server does not say why; check the name of the bucket (pg), its region, the endpoint \
                      (http://s3), and whether the credentials have expired";
        assert_eq!(
            head("400 Bad Request"),
            format!("put s3://pg/a: rejected: 400 Bad Request, {advice}")
        );
        let page =
            outcome("Server returned non-2xx status code: 400 Bad Request: <html>\nHTTPS, please</html>");
        assert!(
            page.contains("rejected: 400 Bad Request: <html> HTTPS, please</html>, and"),
            "{page}"
        );
        let elsewhere =
            "Received redirect without LOCATION, this normally indicates an incorrectly configured region";
        assert_eq!(
            outcome(elsewhere),
            format!("put s3://pg/a: rejected: redirect without location, {advice}")
        );
        // The answer to another request, without which this one could not be signed.
        let unsigned = "Error performing HEAD http://s3/pg/a in 1ms - HTTP error: Error performing PUT http://metadata in \
                        1ms - Server returned non-2xx status code: 404 Not Found: ";
        assert!(outcome(unsigned).starts_with("retry: "), "{}", outcome(unsigned));
        for passing in [
            "408 Request Timeout",
            "429 Too Many Requests",
            "503 Service Unavailable",
            "307 Temporary Redirect",
        ] {
            assert!(head(passing).starts_with("retry: "), "{passing}");
        }
        for lasting in [
            "301 Moved Permanently",
            "405 Method Not Allowed",
            "411 Length Required",
        ] {
            assert!(head(lasting).contains("rejected"), "{lasting}");
        }
    }
}
