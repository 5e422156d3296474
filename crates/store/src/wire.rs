//! What happens to a request between the library and the network: it is signed here, with the credentials of that
//! moment, and gets the headers that the library has no words for (object lock, checksums).

use async_trait::async_trait;
use http::header::HeaderValue;
use http_body_util::BodyExt;
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

use crate::integrity::{CRC32C, Echoed, Proof, sha256};

/// Makes clients that sign; for a library told not to.
#[derive(Clone, Debug)]
pub(crate) struct SigningConnector {
    pub(crate) credentials: AwsCredentialProvider,
    pub(crate) region: String,
}

#[derive(Debug)]
struct Signing {
    client: HttpClient,
    credentials: AwsCredentialProvider,
    region: String,
}

impl HttpConnector for SigningConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Signing {
            client: ReqwestConnector::default().connect(options)?,
            credentials: self.credentials.clone(),
            region: self.region.clone(),
        }))
    }
}

#[async_trait]
impl HttpService for Signing {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let sha256 = match request.extensions_mut().remove::<Proof>() {
            Some(proof) => {
                request.headers_mut().extend(proof.headers);
                proof.sha256
            }
            None => Some(body_sha256(&request).await?),
        };
        let failed = |error: object_store::Error| HttpError::new(HttpErrorKind::Unknown, error);
        let credential = self.credentials.get_credential().await.map_err(failed)?;
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .with_sign_payload(sha256.is_some())
            .try_authorize(&mut request, sha256.as_ref().map(<[u8; 32]>::as_slice))
            .map_err(failed)?;
        let sent: Option<HeaderValue> = request.headers().get(CRC32C).cloned();
        let mut response = self.client.execute(request).await?;
        if let Some(sent) = sent {
            let echoed = response.headers().get(CRC32C) == Some(&sent);
            response.extensions_mut().insert(Echoed(echoed));
        }
        Ok(response)
    }
}

/// Covers what the library sends by itself: parts, and the small documents that end uploads or delete objects.
async fn body_sha256(request: &HttpRequest) -> Result<[u8; 32], HttpError> {
    let mut body = request.body().clone();
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        pieces.extend(frame?.into_data());
    }
    Ok(sha256(pieces))
}
