//! Sessions to servers that a URL leads to, encrypted as `sslmode` says.
//!
//! The crate `postgres` knows `disable`, `prefer` and `require`. What else libpq knows is read here: `allow`, `verify-ca`, `verify-full` and
//! `sslrootcert`. `prefer` and `require` verify only if
//! `sslrootcert` is given; libpq also looks for a file in the home directory then. It reads variables like `PGSSLMODE`, which are not read here.

use crate::ClusterError;
use crate::error::message_of;
use postgres::{Client, Config};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long a server has to accept a connection.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How servers are reached.
#[derive(Clone)]
pub(crate) struct Reach {
    /// The server of the URL.
    pub(crate) config: Config,
    tls: MakeRustlsConnect,
}

impl Reach {
    /// As a URL (or a list of libpq's settings) says.
    pub(crate) fn of(url: &str) -> Result<Self, ClusterError> {
        let bad = |reason: String| ClusterError::NoCoordinator { reason };
        let asked = Asked::of(url);
        let mut config: Config = asked.rest.parse().map_err(|error| bad(message_of(&error)))?;
        config.connect_timeout(PATIENCE).application_name("pgshard");
        let verifier = asked.verifier().map_err(bad)?;
        let provider = Arc::clone(&verifier.provider);
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self { config, tls: MakeRustlsConnect::new(tls) })
    }

    /// A session to the server of the URL.
    pub(crate) fn connect(&self) -> Result<Client, postgres::Error> {
        self.config.connect(self.tls.clone())
    }

    /// A session to another server, as the same user, by the same means.
    pub(crate) fn connect_to(&self, hosts: &str, port: u16) -> Result<Client, postgres::Error> {
        let mut config = Config::new();
        config.connect_timeout(PATIENCE).application_name("pgshard");
        config.ssl_mode(self.config.get_ssl_mode());
        for host in hosts.split(',') {
            config.host(host).port(port);
        }
        self.config.get_user().map(|user| config.user(user));
        self.config.get_password().map(|password| config.password(password));
        self.config.get_dbname().map(|name| config.dbname(name));
        config.connect(self.tls.clone())
    }
}

/// What is asked of certificates, and the rest of the URL.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    rest: String,
    mode: String,
    root: Option<String>,
}

impl Asked {
    fn of(url: &str) -> Self {
        let mut asked = Self { rest: String::new(), mode: "prefer".to_owned(), root: None };
        let is_url = url.contains("://");
        let (start, settings) = match url.split_once('?') {
            Some((start, settings)) if is_url => (start, settings),
            _ if is_url => (url, ""),
            _ => ("", url),
        };
        let separator = if is_url { '&' } else { ' ' };
        let kept: Vec<String> = settings
            .split(separator)
            .filter(|setting| !setting.is_empty())
            .filter_map(|setting| match setting.split_once('=') {
                Some(("sslmode", mode)) => {
                    asked.mode = mode.to_owned();
                    let known = match mode {
                        "allow" => "prefer",
                        "verify-ca" | "verify-full" => "require",
                        other => other,
                    };
                    Some(format!("sslmode={known}"))
                }
                Some(("sslrootcert", file)) => {
                    asked.root = Some(file.replace("%2F", "/").replace("%2f", "/"));
                    None
                }
                _ => Some(setting.to_owned()),
            })
            .collect();
        asked.rest = match (is_url, kept.is_empty()) {
            (true, false) => format!("{start}?{}", kept.join("&")),
            (true, true) => start.to_owned(),
            (false, _) => kept.join(" "),
        };
        asked
    }

    fn verifier(&self) -> Result<Verifier, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let must_verify = self.mode.starts_with("verify-");
        let file = match (&self.root, must_verify) {
            (Some(file), _) => PathBuf::from(file),
            (None, true) => {
                let home = std::env::var_os("HOME").ok_or("sslrootcert is not set")?;
                PathBuf::from(home).join(".postgresql/root.crt")
            }
            (None, false) => {
                return Ok(Verifier {
                    provider,
                    roots: Vec::new(),
                    chain: None,
                    checks_name: false,
                });
            }
        };
        let failed = |what: String| format!("root certificate file \"{}\": {what}", file.display());
        let roots: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&file)
            .and_then(Iterator::collect)
            .map_err(|error| failed(error.to_string()))?;
        let mut store = RootCertStore::empty();
        let (good, _) = store.add_parsable_certificates(roots.iter().cloned());
        let chain = (good > 0).then(|| {
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
                .build()
        });
        let chain = chain.transpose().map_err(|error| failed(error.to_string()))?;
        if roots.is_empty() {
            return Err(failed("it has no certificate".to_owned()));
        }
        Ok(Verifier { provider, roots, chain, checks_name: self.mode == "verify-full" })
    }
}

/// Verifies as much of a server's certificate as was asked for.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// Of whom certificates must come; nobody in particular, if there are none.
    roots: Vec<CertificateDer<'static>>,
    chain: Option<Arc<WebPkiServerVerifier>>,
    checks_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.roots.is_empty() {
            return Ok(ServerCertVerified::assertion());
        }
        // A certificate that signs itself is its own root.
        if !self.roots.iter().any(|root| root == end_entity) {
            let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
            let chain = self.chain.as_ref().ok_or(unknown)?;
            let verified = chain.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
            match verified {
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. },
                )) if !self.checks_name => {}
                other => return other,
            }
        } else if self.checks_name {
            rustls::client::verify_server_name(
                &ParsedCertificate::try_from(end_entity)?,
                server_name,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::Asked;

    fn asked(url: &str) -> (String, String, Option<String>) {
        let Asked { rest, mode, root } = Asked::of(url);
        (rest, mode, root)
    }

    fn owned(rest: &str, mode: &str, root: Option<&str>) -> (String, String, Option<String>) {
        (rest.to_owned(), mode.to_owned(), root.map(str::to_owned))
    }

    #[test]
    fn modes_that_the_library_does_not_know_become_ones_that_it_knows() {
        let url =
            "postgres://me@here:1/db?sslmode=verify-full&connect_timeout=3&sslrootcert=%2Fca.crt";
        let rest = "postgres://me@here:1/db?sslmode=require&connect_timeout=3";
        assert_eq!(asked(url), owned(rest, "verify-full", Some("/ca.crt")));
        let rest = "postgres://here/db?sslmode=prefer";
        assert_eq!(asked("postgres://here/db?sslmode=allow"), owned(rest, "allow", None));
    }

    #[test]
    fn what_asks_for_nothing_stays_as_it_is() {
        for url in
            ["postgres://here/db", "postgres://here/db?application_name=x", "host=here user=me"]
        {
            assert_eq!(asked(url), owned(url, "prefer", None));
        }
        let settings = "host=here sslrootcert=/ca.crt sslmode=verify-ca";
        assert_eq!(
            asked(settings),
            owned("host=here sslmode=require", "verify-ca", Some("/ca.crt"))
        );
    }

    #[test]
    fn a_root_certificate_that_is_not_there_is_named() {
        let asked = Asked::of("postgres://here/db?sslmode=verify-ca&sslrootcert=/absent.crt");
        let reason = asked.verifier().expect_err("the file is not there");
        assert!(reason.contains("/absent.crt"), "{reason}");
    }
}
