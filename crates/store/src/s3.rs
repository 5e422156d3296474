//! The client of an S3 server, from its configuration.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider};
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig, StaticCredentialProvider};

use crate::config::S3Config;
use crate::credentials::{self, FileCredentials, Profile};
use crate::error::{StoreError, StoreResult};
use crate::wire::SigningConnector;

/// The client and where it sends to.
pub(crate) fn open(config: &S3Config) -> StoreResult<(AmazonS3, String)> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may install one in between; either is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let invalid = |name: &str, error: &dyn std::fmt::Display| StoreError::Setting {
        name: name.to_owned(),
        problem: error.to_string(),
    };
    // The timeouts are those of crate::retry, which knows how much data an attempt carries.
    let mut client = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_secs(10))
        .with_pool_idle_timeout(Duration::from_secs(30));
    let mut bundles = Vec::new();
    if let Some(file) = &config.ca_file {
        let name = "WALG_S3_CA_CERT_FILE";
        let pem =
            std::fs::read(file).map_err(|error| invalid(name, &format!("{}: {error}", file.display())))?;
        bundles.push((name, pem));
    }
    if let Some(pem) = &config.ca_bundle {
        bundles.push(("CA bundle", pem.clone().into_bytes()));
    }
    for (name, pem) in bundles {
        for certificate in Certificate::from_pem_bundle(&pem).map_err(|error| invalid(name, &error))? {
            client = client.with_root_certificate(certificate);
        }
    }
    if config.insecure {
        client = client.with_allow_invalid_certificates(true);
    }
    // One attempt each: a retry must sign again, or it fails once the signature is 15 minutes old.
    let once = RetryConfig {
        max_retries: 0,
        retry_timeout: Duration::ZERO,
        backoff: BackoffConfig::default(),
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_region(&config.region)
        .with_virtual_hosted_style_request(!config.path_style)
        .with_retry(once.clone());
    let mut endpoint = format!("https://s3.{}.amazonaws.com", config.region);
    if let Some(url) = &config.endpoint {
        endpoint.clone_from(url);
        client = client.with_allow_http(url.starts_with("http://"));
        builder = match (config.path_style, url.split_once("://")) {
            (false, Some((scheme, host))) => {
                builder.with_endpoint(format!("{scheme}://{}.{host}", config.bucket))
            }
            _ => builder.with_endpoint(url),
        };
    }
    match (config.encryption.as_deref(), &config.kms_key) {
        (Some("aws:kms"), Some(key)) => builder = builder.with_sse_kms_encryption(key),
        (Some(method), _) => {
            let key = "aws_server_side_encryption"
                .parse()
                .map_err(|error| invalid("WALG_S3_SSE", &error))?;
            builder = builder.with_config(key, method);
        }
        (None, _) => {}
    }
    // The library would hash every body on the thread that sends it; so crate::wire signs instead.
    let connector = SigningConnector {
        credentials: credentials(config, once, &client)?,
        region: config.region.clone(),
    };
    let s3 = builder
        .with_skip_signature(true)
        // Store::delete asks for one object at a time; the request for many has a body, and not every server knows it.
        .with_disable_bulk_delete(true)
        .with_http_connector(connector)
        .with_client_options(client)
        .build()
        .map_err(|error| invalid("AWS_ENDPOINT", &error))?;
    Ok((s3, endpoint))
}

/// Who signs: the keys of a file or of the configuration, else whatever the library finds for the pod or the machine.
fn credentials(
    config: &S3Config,
    retry: RetryConfig,
    client: &ClientOptions,
) -> StoreResult<AwsCredentialProvider> {
    let mut web_identity = config.web_identity.clone();
    if let Some(file) = &config.credentials_file {
        match credentials::read(file)? {
            (version, Profile::Keys(keys)) => {
                return Ok(Arc::new(FileCredentials::new(file.clone(), version, keys)));
            }
            (_, Profile::WebIdentity(role, token)) => web_identity = Some((role, token)),
        }
    } else if let Some((key, secret)) = &config.credentials {
        return Ok(Arc::new(StaticCredentialProvider::new(AwsCredential {
            key_id: key.clone(),
            secret_key: secret.expose().to_owned(),
            token: config
                .session_token
                .as_ref()
                .map(|token| token.expose().to_owned()),
        })));
    }
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_region(&config.region)
        .with_retry(retry)
        .with_client_options(client.clone());
    if let Some((role, file)) = web_identity {
        builder = builder
            .with_config(AmazonS3ConfigKey::RoleArn, role)
            .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, file);
    }
    let built = builder.build().map_err(|error| StoreError::Setting {
        name: "credentials".to_owned(),
        problem: error.to_string(),
    })?;
    Ok(Arc::clone(built.credentials()))
}
