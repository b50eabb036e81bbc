//! A throw-away certificate authority and a server certificate for loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::download::run;

const CONFIG: &str = "\
[req]
distinguished_name = name
prompt = no
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
";

/// PEM files of a certificate authority and of a server certificate for `localhost` and `127.0.0.1`
/// that it signed.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority that signed the servers' certificate.
    pub ca: PathBuf,
    /// An authority that signed nothing: a client that trusts only this one must refuse.
    pub unrelated_ca: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The server's private key, PKCS #8.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes new keys and certificates in the existing directory `directory`.
    pub fn generate(directory: &Path) -> Result<Self> {
        let file = |name: &str| directory.join(name);
        fs::write(file("openssl.cnf"), CONFIG)?;
        run(&mut request(directory, "tailwater test authority", "ca", "authority"))?;
        run(&mut request(directory, "unrelated authority", "unrelated-ca", "authority"))?;
        run(request(directory, "localhost", "server", "server")
            .arg("-CA")
            .arg(file("ca.pem"))
            .arg("-CAkey")
            .arg(file("ca.key")))?;
        Ok(Self {
            ca: file("ca.pem"),
            unrelated_ca: file("unrelated-ca.pem"),
            certificate: file("server.pem"),
            key: file("server.key"),
        })
    }
}

/// `openssl req` for a self-signed certificate; `-CA` and `-CAkey` make it a signed one.
fn request(directory: &Path, common_name: &str, name: &str, extensions: &str) -> Command {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-days", "3650", "-newkey", "ec"]);
    command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-config"]);
    command.arg(directory.join("openssl.cnf"));
    command.args(["-subj", &format!("/CN={common_name}"), "-extensions", extensions, "-keyout"]);
    command.arg(directory.join(format!("{name}.key"))).arg("-out");
    command.arg(directory.join(format!("{name}.pem")));
    command
}
