//! Targets behind TLS: a real server on 127.0.0.1 with certificates of an authority of our own (`tls/make.sh`).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};
use trine_model::TenantId;
use trine_schema::StreamRegistry;
use trine_scrape::{ScrapeConfig, Scraper, ScraperOptions};

use crate::http::{answer, scraped};

/// A file of `tls/`.
fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/tls").join(name)
}

/// Serves one sample with a certificate. Of clients it wants one of `ca.pem`, if any. What it was asked is kept,
/// behind the version of TLS.
async fn server(name: &str, wants_certificates: bool) -> (String, Arc<Mutex<Vec<String>>>) {
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(pem(&format!("{name}.pem"))).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(pem(&format!("{name}.key"))).unwrap();
    let config = ServerConfig::builder();
    let config = if wants_certificates {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pem("ca.pem")).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        config.with_client_cert_verifier(verifier)
    } else {
        config.with_no_client_auth()
    };
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let kept = asked.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // A client that does not trust us goes away.
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut bytes = [0; 1024];
                let Ok(length @ 1..) = socket.read(&mut bytes).await else { break };
                request.extend_from_slice(&bytes[..length]);
            }
            if request.is_empty() {
                continue;
            }
            let version = socket.get_ref().1.protocol_version().unwrap();
            kept.lock().push(format!("{version:?} {}", String::from_utf8_lossy(&request).to_lowercase()));
            let _ = socket.write_all(&answer("200 OK", "Content-Type: text/plain\r\n", b"m 1\n")).await;
            let _ = socket.shutdown().await;
        }
    });
    (address, asked)
}

/// `name: 'path'` for a file of `tls/`.
fn file(field: &str, name: &str) -> String {
    format!("{field}: '{}'", pem(name).display())
}

const UP: [&str; 2] = ["m{instance=ADDRESS,job=j} 1", "up{instance=ADDRESS,job=j} 1"];

/// Scrapes by https with a `tls_config` and more fields; the requests.
async fn succeeds(name: &str, wants_certificates: bool, tls: &str, fields: &str) -> String {
    let (address, asked) = server(name, wants_certificates).await;
    let fields = format!("scheme: https, tls_config: {{{tls}}}, {fields}");
    let (rows, error) = scraped(&address, &fields).await;
    assert_eq!((rows, &*error), (UP.map(str::to_owned).to_vec(), ""), "{fields}");
    asked.lock()[0].clone()
}

/// Scrapes in vain; why.
async fn fails(name: &str, wants_certificates: bool, tls: &str) -> String {
    let (address, asked) = server(name, wants_certificates).await;
    let (rows, error) = scraped(&address, &format!("scheme: https, tls_config: {{{tls}}},")).await;
    assert_eq!(rows, ["up{instance=ADDRESS,job=j} 0"], "{tls}");
    assert!(asked.lock().is_empty(), "nothing is told to a server that is not trusted: {tls}");
    error
}

#[tokio::test]
async fn certificates_decide_who_is_scraped() {
    let ca = file("ca_file", "ca.pem");
    let text = std::fs::read_to_string(pem("ca.pem")).unwrap();
    let inline = format!("ca: \"{}\"", text.replace('\n', "\\n"));
    let (by_file, by_text, unverified, misnamed) = tokio::join!(
        succeeds("server", false, &ca, ""),
        succeeds("server", false, &inline, ""),
        succeeds("server", false, "insecure_skip_verify: true", ""),
        succeeds("elsewhere", false, "insecure_skip_verify: true", ""),
    );
    for request in [by_file, by_text, unverified, misnamed] {
        assert!(request.starts_with("TLSv1_3 get /metrics http/1.1\r\n"), "{request}");
    }
    let other = file("ca_file", "stranger.pem");
    let (unknown, stranger, elsewhere) = tokio::join!(
        fails("server", false, ""),
        fails("server", false, &other),
        fails("elsewhere", false, &ca),
    );
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    assert!(stranger.contains("certificate"), "{stranger}");
    assert!(elsewhere.contains("not valid for name"), "{elsewhere}");
}

#[tokio::test]
async fn versions_are_bounded() {
    let ca = file("ca_file", "ca.pem");
    for (versions, spoken) in [
        ("max_version: TLS12", "TLSv1_2"),
        ("min_version: TLS13", "TLSv1_3"),
        ("min_version: TLS10, max_version: TLS13", "TLSv1_3"),
    ] {
        let request = succeeds("server", false, &format!("{ca}, {versions}"), "").await;
        assert!(request.starts_with(spoken), "{versions}: {request}");
    }
}

#[tokio::test]
async fn a_certificate_is_shown_to_a_target_that_wants_one() {
    let shown = |name: &str| {
        let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
        format!("{}, {}, {}", file("ca_file", "ca.pem"), file("cert_file", &cert), file("key_file", &key))
    };
    let (client, intruder, none) = (shown("client"), shown("intruder"), file("ca_file", "ca.pem"));
    let (taken, intruder, none) = tokio::join!(
        succeeds("server", true, &client, ""),
        fails("server", true, &intruder),
        fails("server", true, &none),
    );
    assert!(taken.contains("get /metrics"), "{taken}");
    assert!(!intruder.is_empty() && !none.is_empty());
}

#[tokio::test]
async fn credentials_are_sent_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    for (fields, header) in [
        ("basic_auth: {username: u, password: p},".to_owned(), "\r\nauthorization: basic dtpw\r\n"),
        (format!("bearer_token_file: '{}',", token.display()), "\r\nauthorization: bearer secret\r\n"),
    ] {
        let request = succeeds("server", false, &file("ca_file", "ca.pem"), &fields).await;
        assert!(request.contains(header), "{request}");
    }
}

/// What cannot be used is told before anything is scraped: when the file is read, or at the start.
#[tokio::test]
async fn what_cannot_be_used_is_refused() {
    let start = |tls: &str| {
        let yaml = format!("scrape_configs: [{{job_name: j, scheme: https, tls_config: {{{tls}}}}}]");
        let config =
            ScrapeConfig::parse(&yaml, Path::new("p.yml")).map_err(|errors| errors[0].to_string())?;
        let options = ScraperOptions::new(TenantId::default(), Arc::new(StreamRegistry::new()));
        let append = |_| async { Ok::<_, String>(()) };
        Scraper::start(config, options, append).map(drop).map_err(|error| error.to_string())
    };
    start("insecure_skip_verify: true").unwrap();
    for (tls, error) in [
        (
            "server_name: a",
            "tls_config has no field \"server_name\" that is supported; these are: ca, ca_file, ",
        ),
        ("min_version: TLS9", "min_version: \"TLS9\" is none of TLS10, TLS11, TLS12, TLS13"),
        ("max_version: TLS11", "max_version: TLS11 is older than what is spoken, TLS12 and TLS13"),
        ("min_version: TLS13, max_version: TLS12", "min_version is newer than max_version; swap them"),
        ("ca: x, ca_file: y", "ca and ca_file are both given; leave one out"),
        ("cert: x", "tls_config has a certificate or a key without the other; give both"),
        ("ca: nonsense", "job \"j\": tls_config.ca holds no certificate in PEM"),
        ("cert: x, key: y", "job \"j\": tls_config.cert and key cannot be used: "),
    ] {
        let refused = start(tls).expect_err(tls);
        assert!(refused.contains(error), "{tls}: {refused}");
    }
    let mixed = format!("{}, {}", file("cert_file", "client.pem"), file("key_file", "server.key"));
    let refused = start(&mixed).expect_err("a key of another certificate");
    assert!(refused.starts_with("job \"j\": TLS cannot be set up"), "{refused}");
}
