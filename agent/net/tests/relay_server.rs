//! Relays for tests: iroh's own server, in this process.

use std::net::SocketAddr;
use std::sync::Arc;

use blixard_model::RelayUrl;
use blixard_net::{RelayCa, RelayList};
use iroh_relay::server::{CertConfig, RelayConfig, Server, ServerConfig, TlsConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;

pub(crate) struct Relay {
    server: Server,
    pub(crate) url: RelayUrl,
}

impl Relay {
    /// A relay on any free port.
    pub(crate) async fn new() -> Self {
        Self::on("127.0.0.1:0".parse().expect("address")).await
    }

    pub(crate) async fn on(address: SocketAddr) -> Self {
        let mut config = ServerConfig::default();
        config.relay = Some(RelayConfig::new(address));
        let server = Server::spawn(config).await.expect("it starts");
        let address = server.http_addr().expect("it listens");
        Self { server, url: format!("http://{address}").parse().expect("url") }
    }

    /// A relay with TLS, whose certificate comes from an authority that nobody else knows.
    pub(crate) async fn with_tls() -> (Self, RelayCa) {
        let (tls, ca) = own_authority();
        let mut relay = RelayConfig::new(([127, 0, 0, 1], 0));
        relay.tls = Some(TlsConfig::new(([127, 0, 0, 1], 0), CertConfig::Manual { server_config: tls }));
        let mut config = ServerConfig::default();
        config.relay = Some(relay);
        let server = Server::spawn(config).await.expect("it starts");
        let address = server.https_addr().expect("it listens");
        (Self { server, url: format!("https://{address}").parse().expect("url") }, ca)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.http_addr().expect("it listens")
    }

    /// A list that holds only this relay.
    pub(crate) fn list(&self) -> RelayList {
        RelayList::new(std::slice::from_ref(&self.url)).expect("a list")
    }

    pub(crate) async fn stop(self) {
        self.server.shutdown().await.expect("it stops");
    }
}

fn own_authority() -> (rustls::ServerConfig, RelayCa) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("authority");
    let key = KeyPair::generate().expect("key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
    let certificate = params.signed_by(&key, &issuer).expect("certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("certificate and key");
    (config, RelayCa::from_pem(issuer.pem().as_bytes()).expect("an authority"))
}
