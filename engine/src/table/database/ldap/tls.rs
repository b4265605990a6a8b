//! TLS to directory servers.
//!
//! Source: ldap_table(5), "LDAP SSL AND STARTTLS PARAMETERS".

use std::path::Path;
use std::sync::Arc;

use ldap3::LdapConnSettings;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::super::super::OpenError;
use super::super::cf::Cf;

/// Settings of the connection, as far as TLS goes.
///
/// # Errors
/// A file of certificates or a key cannot be read.
pub(super) fn settings(cf: &Cf) -> Result<LdapConnSettings, OpenError> {
    let settings = LdapConnSettings::new().set_starttls(cf.flag("start_tls", false)?);
    if !cf.flag("tls_require_cert", false)? {
        return Ok(settings.set_no_tls_verify(true));
    }
    let [authorities, certificate, key] =
        ["tls_ca_cert_file", "tls_cert", "tls_key"].map(|name| cf.text(name));
    if authorities.is_empty() {
        return Ok(settings);
    }
    let wrong = |path: &str, cause: String| cf.wrong(&format!("{path}: {cause}"));
    let mut roots = RootCertStore::empty();
    for authority in certificates(authorities).map_err(|cause| wrong(authorities, cause))? {
        let added = roots.add(authority);
        added.map_err(|error| wrong(authorities, error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| cf.wrong(&error.to_string()))?
        .with_root_certificates(roots);
    let config = if certificate.is_empty() {
        config.with_no_client_auth()
    } else {
        let chain = certificates(certificate).map_err(|cause| wrong(certificate, cause))?;
        let secret = PrivateKeyDer::from_pem_file(Path::new(key))
            .map_err(|error| wrong(key, error.to_string()))?;
        config
            .with_client_auth_cert(chain, secret)
            .map_err(|error| wrong(certificate, error.to_string()))?
    };
    Ok(settings.set_config(Arc::new(config)))
}

/// Reports a client certificate that is not presented to the server, with the reason.
///
/// # Errors
/// `tls_require_cert` is neither yes nor no.
pub(super) fn complaints(name: &str, cf: &Cf) -> Result<Option<String>, OpenError> {
    let is_shown = cf.flag("tls_require_cert", false)? && !cf.text("tls_ca_cert_file").is_empty();
    if is_shown || cf.text("tls_cert").is_empty() {
        return Ok(None);
    }
    Ok(Some(format!(
        "{name}: tls_cert has no effect: it is presented only to a server whose certificate is \
         checked; set tls_require_cert = yes and tls_ca_cert_file"
    )))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(Path::new(path)).map_err(|e| e.to_string())?;
    let all: Result<Vec<_>, _> = read.collect();
    match all {
        Ok(all) if all.is_empty() => Err("no certificate in it".to_owned()),
        all => all.map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_shown_is_reported() {
        let complaint = |text: &str| {
            let cf = Cf::parse("ldap:/f", "/f", text.as_bytes()).unwrap();
            complaints("ldap:/f", &cf).unwrap()
        };
        let text = complaint("tls_cert = /c\ntls_key = /k\n").unwrap();
        assert!(text.contains("set tls_require_cert = yes"), "{text}");
        assert!(complaint("tls_cert = /c\ntls_require_cert = yes\n").is_some());
        let whole = "tls_cert = /c\ntls_require_cert = yes\ntls_ca_cert_file = /a\n";
        assert_eq!(complaint(whole), None);
        assert_eq!(complaint("tls_require_cert = no\n"), None);
    }
}
