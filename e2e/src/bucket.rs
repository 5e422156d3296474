//! A bucket of the cluster's S3 server, looked at with a client other than the one under test.

use anyhow::{Context, Result, bail};
use futures::TryStreamExt as _;
use holdfast_testkit::local::S3;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::{HttpConnector as _, HttpRequestBody, ReqwestConnector};
use object_store::{ClientOptions, ObjectStore as _, ObjectStoreExt as _, path::Path};
use serde_json::{Map, Value, json};

/// A bucket and the way to it.
#[derive(Debug)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    access: S3,
    client: AmazonS3,
}

impl Bucket {
    /// Creates the bucket; one that exists will do.
    pub async fn create(name: &str) -> Result<Self> {
        let access = S3::load()?;
        create(&access, name)
            .await
            .with_context(|| format!("cannot create bucket {name}"))?;
        let client = AmazonS3Builder::new()
            .with_bucket_name(name)
            .with_endpoint(access.get("AWS_ENDPOINT"))
            .with_region(region(&access))
            .with_access_key_id(access.get("AWS_ACCESS_KEY_ID"))
            .with_secret_access_key(access.get("AWS_SECRET_ACCESS_KEY"))
            .with_allow_http(true)
            .build()?;
        Ok(Self {
            name: name.to_owned(),
            access,
            client,
        })
    }

    /// A Secret with wal-g's names that gives access to this bucket; `more` adds or replaces keys.
    pub fn secret(&self, name: &str, more: &[(&str, &str)]) -> Value {
        let mut data = Map::new();
        for key in ["AWS_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            data.insert(key.to_owned(), self.access.get(key).into());
        }
        data.insert("AWS_REGION".to_owned(), region(&self.access).into());
        data.insert("AWS_S3_FORCE_PATH_STYLE".to_owned(), "true".into());
        data.insert("WAL_S3_BUCKET".to_owned(), self.name.as_str().into());
        data.extend(
            more.iter()
                .map(|(key, value)| ((*key).to_owned(), Value::from(*value))),
        );
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
    }

    /// The names of all objects below `path`.
    pub async fn list(&self, path: &str) -> Result<Vec<String>> {
        let prefix = Path::from(path);
        let objects: Vec<_> = self
            .client
            .list(Some(&prefix))
            .try_collect()
            .await
            .context("cannot list the bucket")?;
        Ok(objects
            .into_iter()
            .map(|object| object.location.to_string())
            .collect())
    }

    /// Size of all objects below `path`, in bytes.
    pub async fn size(&self, path: &str) -> Result<u64> {
        let prefix = Path::from(path);
        let objects: Vec<_> = self
            .client
            .list(Some(&prefix))
            .try_collect()
            .await
            .context("cannot list the bucket")?;
        Ok(objects.into_iter().map(|object| object.size).sum())
    }

    /// One JSON object.
    pub async fn json(&self, key: &str) -> Result<Value> {
        let object = self
            .client
            .get(&Path::from(key))
            .await
            .with_context(|| format!("cannot read {key}"))?;
        serde_json::from_slice(&object.bytes().await?).with_context(|| format!("{key} is not JSON"))
    }

    /// Removes all objects, so that a test leaves no gigabytes behind.
    pub async fn clear(&self) -> Result<()> {
        for name in self.list("").await? {
            self.client
                .delete(&Path::from(name.as_str()))
                .await
                .with_context(|| format!("cannot remove {name}"))?;
        }
        Ok(())
    }
}

fn region(access: &S3) -> &str {
    match access.get("AWS_REGION") {
        "" => "us-east-1",
        region => region,
    }
}

/// CreateBucket, which object_store does not offer.
async fn create(access: &S3, name: &str) -> Result<()> {
    let credential = AwsCredential {
        key_id: access.get("AWS_ACCESS_KEY_ID").to_owned(),
        secret_key: access.get("AWS_SECRET_ACCESS_KEY").to_owned(),
        token: None,
    };
    let url = format!("{}/{name}", access.get("AWS_ENDPOINT").trim_end_matches('/'));
    let mut request = http::Request::put(url).body(HttpRequestBody::empty())?;
    AwsAuthorizer::new(&credential, "s3", region(access)).try_authorize(&mut request, None)?;
    let client = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true))?;
    let response = client.execute(request).await?;
    let status = response.status();
    if status.is_success() || status == http::StatusCode::CONFLICT {
        return Ok(());
    }
    bail!("the S3 server answered {status}");
}
