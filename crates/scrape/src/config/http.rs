//! How a job connects: credentials, certificates, redirects.

use std::{fmt, path::PathBuf};

use super::{Fields, Notes};

/// Longest file of certificates, in bytes.
const MAX_PEM_BYTES: u64 = 4 << 20;

/// A text that is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// A secret, or the file that holds it, which is read at every scrape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Written in the configuration.
    Text(Secret),
    /// Content of this file, without blanks around it.
    File(PathBuf),
}

/// `basic_auth`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// Name of the user.
    pub username: String,
    /// `None` is an empty one.
    pub password: Option<Credentials>,
}

/// `authorization`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// `Bearer` by default.
    pub kind: String,
    /// What follows it.
    pub credentials: Option<Credentials>,
}

/// `tls_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificates in PEM that are trusted instead of the system's.
    pub ca: Option<Vec<u8>>,
    /// Certificate and key in PEM to show to targets.
    pub identity: Option<(Vec<u8>, SecretBytes)>,
    /// Whether any certificate is trusted.
    pub insecure_skip_verify: bool,
    /// Oldest version to speak; 1.2 unless 1.3 is asked for.
    pub min_version: TlsVersion,
    /// Newest version to speak.
    pub max_version: TlsVersion,
}

/// Versions of TLS that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// `TLS12`.
    Tls12,
    /// `TLS13`.
    Tls13,
}

impl TlsVersion {
    /// Older versions than those that are spoken are `None`.
    fn read(text: &str) -> Result<Option<Self>, String> {
        match text {
            "TLS10" | "TLS11" => Ok(None),
            "TLS12" => Ok(Some(Self::Tls12)),
            "TLS13" => Ok(Some(Self::Tls13)),
            _ => Err(format!("{text:?} is none of TLS10, TLS11, TLS12, TLS13")),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            ca: None,
            identity: None,
            insecure_skip_verify: false,
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
        }
    }
}

/// Bytes that are shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(pub Vec<u8>);

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// How to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// At most one of this and `authorization`.
    pub basic_auth: Option<BasicAuth>,
    /// Header `Authorization`.
    pub authorization: Option<Authorization>,
    /// Certificates.
    pub tls: Tls,
    /// Whether redirects are followed.
    pub follow_redirects: bool,
}

impl Default for Http {
    fn default() -> Self {
        Self { basic_auth: None, authorization: None, tls: Tls::default(), follow_redirects: true }
    }
}

/// Two fields of which at most one is given: the secret itself, or its file.
fn credentials(
    fields: &mut Fields<'_>,
    (name, file): (&'static str, &'static str),
    notes: &mut Notes<'_>,
) -> Option<Credentials> {
    let text = fields.text(name, notes);
    let path = fields.text(file, notes);
    match (text, path) {
        (Some(_), Some(_)) => {
            notes.error(fields.place, format!("{name} and {file} are both given; leave one out"));
            None
        }
        (Some(text), None) => Some(Credentials::Text(Secret(text))),
        (None, Some(path)) => Some(Credentials::File(notes.path(&path))),
        (None, None) => None,
    }
}

impl Http {
    pub(super) fn read(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Self {
        let mut http = Self::default();
        if let Some(node) = fields.node("basic_auth")
            && let Some(mut own) = Fields::of(node, "basic_auth", notes)
        {
            let username = own.text("username", notes).unwrap_or_default();
            let password = credentials(&mut own, ("password", "password_file"), notes);
            http.basic_auth = Some(BasicAuth { username, password });
            own.end(notes);
        }
        if let Some(node) = fields.node("authorization")
            && let Some(mut own) = Fields::of(node, "authorization", notes)
        {
            let kind = own.text("type", notes).unwrap_or_else(|| "Bearer".into());
            if kind.eq_ignore_ascii_case("basic") {
                notes.error(node.place, "authorization is not for type Basic; use basic_auth");
            }
            let credentials = credentials(&mut own, ("credentials", "credentials_file"), notes);
            http.authorization = Some(Authorization { kind, credentials });
            own.end(notes);
        }
        if let Some(token) = credentials(fields, ("bearer_token", "bearer_token_file"), notes) {
            if http.authorization.is_some() {
                notes.error(fields.place, "authorization and bearer_token are both given; leave one out");
            }
            http.authorization = Some(Authorization { kind: "Bearer".into(), credentials: Some(token) });
        }
        if http.basic_auth.is_some() && http.authorization.is_some() {
            notes.error(fields.place, "basic_auth and authorization are both given; leave one out");
        }
        if let Some(node) = fields.node("tls_config")
            && let Some(mut own) = Fields::of(node, "tls_config", notes)
        {
            http.tls = Tls::read(&mut own, notes);
            own.end(notes);
        }
        http.follow_redirects = fields.truth("follow_redirects", notes).unwrap_or(true);
        // Scrapes are requests one after the other; HTTP/1.1 serves them as well.
        fields.truth("enable_http2", notes);
        http
    }
}

impl Tls {
    fn read(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Self {
        // `None` where it cannot be read, which is told.
        let mut pem = |name: &'static str, file: &'static str, fields: &mut Fields<'_>| {
            let text = fields.text(name, notes).map(String::into_bytes);
            let Some(path) = fields.text(file, notes) else { return Some(text) };
            let place = fields.place_of(file).unwrap_or(fields.place);
            if text.is_some() {
                notes.error(place, format!("{name} and {file} are both given; leave one out"));
            }
            let path = notes.path(&path);
            match super::read_file(&path, MAX_PEM_BYTES) {
                Ok(bytes) => Some(Some(bytes)),
                Err(error) => {
                    notes.error(place, format!("{file} {} cannot be read: {error}", path.display()));
                    None
                }
            }
        };
        let ca = pem("ca", "ca_file", fields).flatten();
        let certificate = pem("cert", "cert_file", fields);
        let key = pem("key", "key_file", fields);
        let identity = match (certificate, key) {
            (Some(Some(certificate)), Some(Some(key))) => Some((certificate, SecretBytes(key))),
            (Some(Some(_)), Some(None)) | (Some(None), Some(Some(_))) => {
                notes.error(
                    fields.place,
                    "tls_config has a certificate or a key without the other; give both",
                );
                None
            }
            _ => None,
        };
        let insecure_skip_verify = fields.truth("insecure_skip_verify", notes).unwrap_or(false);
        let min_version = fields.read("min_version", notes, TlsVersion::read).flatten();
        let max_version = fields.read("max_version", notes, |text| {
            let too_old = || format!("{text} is older than what is spoken, TLS12 and TLS13");
            TlsVersion::read(text)?.ok_or_else(too_old)
        });
        let (min_version, max_version) =
            (min_version.unwrap_or(TlsVersion::Tls12), max_version.unwrap_or(TlsVersion::Tls13));
        if min_version > max_version {
            notes.error(fields.place, "min_version is newer than max_version; swap them");
        }
        Self { ca, identity, insecure_skip_verify, min_version, max_version }
    }
}
