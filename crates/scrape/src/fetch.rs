//! One request to a target.

use std::{path::Path, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use reqwest::{Client, ClientBuilder, Response, StatusCode, Url, header, redirect};
use trine_protocols::{Compression, DecodeError, Limits, decompress, exposition::Format};

#[cfg(feature = "tls")]
use crate::config::TlsVersion;
use crate::config::{Credentials, Job, Protocol, Tls};

/// Longest body after decompression of a job without a `body_size_limit`, in bytes.
const MAX_BODY_BYTES: usize = 256 << 20;

/// What a target answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// By its `Content-Type`.
    pub format: Format,
    /// Without compression.
    pub body: Vec<u8>,
}

/// Why there is no body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchError {
    /// It is longer than `body_size_limit`.
    TooLong(usize),
    /// Anything else.
    Failed(String),
}

impl std::fmt::Display for FetchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLong(limit) => write!(f, "body_size_limit exceeded (limit: {limit} bytes)"),
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// Asks targets of one job.
pub trait Fetch: Send + Sync + 'static {
    /// The body at `url`. The caller keeps the time; `timeout` is only told to the target.
    fn fetch(&self, url: Url, timeout: Duration) -> BoxFuture<'_, Result<Fetched, FetchError>>;
}

/// Asks by HTTP.
pub(crate) struct HttpFetch {
    client: Client,
    job: Arc<Job>,
    accept: String,
}

fn failed(reason: impl Into<String>) -> FetchError {
    FetchError::Failed(reason.into())
}

/// An error with its causes, without the URL.
fn told(error: reqwest::Error) -> FetchError {
    failed(causes(&error.without_url()))
}

/// An error with its causes, since reqwest's alone says little.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text += ": ";
            text += &more;
        }
        cause = error.source();
    }
    text
}

/// The header by which a job asks for its formats, the first with the most weight.
fn accept(protocols: &[Protocol], escaping: &str) -> String {
    let weights = (1..=Protocol::ALL.len() + 1).rev();
    let asked = protocols.iter().zip(weights).map(|(protocol, weight)| {
        let escaping = if protocol.escapes() { format!(";escaping={escaping}") } else { String::new() };
        format!("{}{escaping};q=0.{weight},", protocol.media_type())
    });
    asked.collect::<String>() + &format!("*/*;q=0.{}", Protocol::ALL.len() + 1 - protocols.len())
}

#[cfg(feature = "tls")]
fn with_tls(builder: ClientBuilder, tls: &Tls) -> Result<Client, String> {
    use reqwest::{Certificate, Identity, tls::Version};
    let version = |version| match version {
        TlsVersion::Tls12 => Version::TLS_1_2,
        TlsVersion::Tls13 => Version::TLS_1_3,
    };
    let mut builder = builder
        .tls_danger_accept_invalid_certs(tls.insecure_skip_verify)
        .tls_version_min(version(tls.min_version))
        .tls_version_max(version(tls.max_version));
    if let Some(ca) = &tls.ca {
        let certificates = Certificate::from_pem_bundle(ca);
        let certificates = certificates.map_err(|error| format!("tls_config.ca cannot be used: {error}"))?;
        if certificates.is_empty() {
            return Err("tls_config.ca holds no certificate in PEM".into());
        }
        builder = builder.tls_certs_only(certificates);
    }
    if let Some((certificate, key)) = &tls.identity {
        let identity = Identity::from_pem(&[&certificate[..], b"\n", &key.0].concat());
        let identity =
            identity.map_err(|error| format!("tls_config.cert and key cannot be used: {error}"))?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| {
        let remedy = "check tls_config, or name certificates in its ca_file if the system has none";
        format!("TLS cannot be set up, {remedy}: {}", causes(&error))
    })
}

/// A client that trusts nobody, for targets without TLS on a system without certificates.
#[cfg(feature = "tls")]
fn without_trust(builder: ClientBuilder) -> Option<Client> {
    builder.tls_certs_only([]).build().ok()
}

#[cfg(not(feature = "tls"))]
fn with_tls(builder: ClientBuilder, tls: &Tls) -> Result<Client, String> {
    if *tls != Tls::default() {
        return Err("this build has no TLS (feature `tls`); leave tls_config out".into());
    }
    builder.build().map_err(|error| causes(&error))
}

#[cfg(not(feature = "tls"))]
fn without_trust(_: ClientBuilder) -> Option<Client> {
    None
}

impl HttpFetch {
    /// The error says which of the certificates cannot be used.
    pub(crate) fn new(job: Arc<Job>) -> Result<Self, String> {
        let builder = || {
            let follow = job.http.follow_redirects;
            let redirects = if follow { redirect::Policy::default() } else { redirect::Policy::none() };
            let agent = concat!("Trine/", env!("CARGO_PKG_VERSION"));
            Client::builder().user_agent(agent).no_proxy().redirect(redirects)
        };
        if cfg!(not(feature = "tls")) && job.scheme == "https" {
            return Err(format!(
                "job {:?}: scheme https needs a build with TLS (feature `tls`)",
                job.job_name
            ));
        }
        let client = with_tls(builder(), &job.http.tls).or_else(|reason| {
            // Without certificates on the system nobody can be trusted, and here nobody has to be.
            let plain = job.scheme == "http" && job.http.tls == Tls::default();
            plain.then(|| without_trust(builder())).flatten().ok_or(reason)
        });
        let client = client.map_err(|reason| format!("job {:?}: {reason}", job.job_name))?;
        let accept = accept(&job.protocols, &job.escaping);
        Ok(Self { client, job, accept })
    }

    async fn get(&self, url: Url, timeout: Duration) -> Result<Fetched, FetchError> {
        let http = &self.job.http;
        let mut request = self
            .client
            .get(url)
            .header(header::ACCEPT, &self.accept)
            .header(header::ACCEPT_ENCODING, if self.job.enable_compression { "gzip" } else { "identity" })
            .header("X-Prometheus-Scrape-Timeout-Seconds", timeout.as_secs_f64().to_string());
        if let Some(auth) = &http.basic_auth {
            request = request.basic_auth(&auth.username, secret(auth.password.as_ref()).await?);
        }
        if let Some(auth) = &http.authorization {
            let credentials = secret(auth.credentials.as_ref()).await?.unwrap_or_default();
            request = request.header(header::AUTHORIZATION, format!("{} {credentials}", auth.kind));
        }
        let response = request.send().await.map_err(told)?;
        if response.status() != StatusCode::OK {
            return Err(failed(format!("server returned HTTP status {}", response.status())));
        }
        self.body(response).await
    }

    async fn body(&self, mut response: Response) -> Result<Fetched, FetchError> {
        let limit = self.job.limits.body_size.unwrap_or(MAX_BODY_BYTES);
        let named = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let format = Format::from_content_type(named(header::CONTENT_TYPE), self.job.fallback);
        let compression = Compression::from_content_encoding(named(header::CONTENT_ENCODING));
        let (format, compression) = match (format, compression) {
            (Ok(format), Ok(compression)) => (format, compression),
            (Err(error), _) => return Err(failed(error.to_string())),
            (_, Err(error)) => return Err(failed(error.to_string())),
        };
        let mut sent = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(told)? {
            if sent.len() + piece.len() > limit {
                return Err(FetchError::TooLong(limit));
            }
            sent.extend_from_slice(&piece);
        }
        if compression == Compression::None {
            return Ok(Fetched { format, body: sent });
        }
        let mut body = Vec::new();
        let limits = Limits { max_body_bytes: limit, ..Limits::default() };
        match decompress(compression, &sent, &limits, &mut body) {
            // Only snappy leaves more in the buffer than it tells.
            Ok(plain) => {
                let length = plain.len();
                body.truncate(length);
                Ok(Fetched { format, body })
            }
            Err(DecodeError::TooLarge { limit }) => Err(FetchError::TooLong(limit)),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// A secret, from its file if it has one.
async fn secret(credentials: Option<&Credentials>) -> Result<Option<String>, FetchError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        async move {
            tokio::fs::read_to_string(&path)
                .await
                .map(|text| text.trim().to_owned())
                .map_err(|error| failed(format!("credentials {} cannot be read: {error}", path.display())))
        }
    };
    match credentials {
        None => Ok(None),
        Some(Credentials::Text(secret)) => Ok(Some(secret.0.clone())),
        Some(Credentials::File(path)) => read(path).await.map(Some),
    }
}

impl Fetch for HttpFetch {
    fn fetch(&self, url: Url, timeout: Duration) -> BoxFuture<'_, Result<Fetched, FetchError>> {
        Box::pin(self.get(url, timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_asked_for_by_weight() {
        let protocols = [Protocol::OpenMetricsText1_0_0, Protocol::PrometheusText0_0_4];
        assert_eq!(
            accept(&protocols, "allow-utf-8"),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,\
             */*;q=0.4"
        );
    }
}
