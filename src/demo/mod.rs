//! What `doorward demo` is made of: secrets that live for one run, a configuration around them, a host product with its page,
//! a backend that verifies what the gateway tells it, and command lines that show each outcome. Starts and stops nothing: the
//! command line does.

pub mod agent;
pub mod host;
pub mod verify;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::clock::UnixTime;
use crate::secret::KeyBytes;
use crate::token::mint;
use verify::Verifier;

/// `keyid` of the demo's assertion key.
const KEY_ID: &str = "a1";
/// The upstream's name in assertions.
const AUDIENCE: &str = "agent";

/// One run's secrets. Dropped with the process: nothing printed works afterwards.
#[derive(Debug)]
pub struct Demo {
    embed_key: String,
    /// Signs identity tokens, as the host's backend would.
    identity: KeyBytes,
    /// Signs step-ups in Karta's format: one secret serves one format.
    step_up: KeyBytes,
    /// Signs what the gateway tells the agent.
    assertion: KeyBytes,
    /// Signs the gateway's sessions.
    session: KeyBytes,
}

/// Where the demo's parts listen.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The gateway.
    pub listen: SocketAddr,
    /// Its admin listener.
    pub admin: SocketAddr,
    /// The agent.
    pub upstream: SocketAddr,
    /// The host product's page.
    pub page: SocketAddr,
}

impl Addresses {
    /// The page's origins: `localhost` is what people type.
    fn origins(&self) -> [String; 2] {
        [format!("http://localhost:{}", self.page.port()), format!("http://{}", self.page)]
    }

    /// Where to open the page.
    pub fn page_url(&self) -> String {
        let [first, _] = self.origins();
        first
    }
}

/// A command line and what it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurlLine {
    /// What it shows, and what to expect.
    pub title: &'static str,
    /// Ready to paste into a POSIX shell.
    pub command: String,
}

impl Demo {
    /// Fresh secrets and a fresh embed key.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            embed_key: format!("pk_demo_{}", random_hex()?),
            identity: KeyBytes::new(random_hex()?.into_bytes()),
            step_up: KeyBytes::new(random_hex()?.into_bytes()),
            assertion: KeyBytes::new(random_hex()?.into_bytes()),
            session: KeyBytes::new(random_hex()?.into_bytes()),
        })
    }

    /// What the demo's agent verifies with.
    pub fn verifier(&self) -> Option<Verifier> {
        Verifier::new(KEY_ID, &self.assertion, AUDIENCE)
    }

    /// What the host product is configured with; `gateway` is where the gateway listens.
    pub fn host(&self, addresses: &Addresses, gateway: SocketAddr) -> host::Settings {
        host::Settings {
            origins: addresses.origins().into(),
            gateway: format!("http://{gateway}"),
            embed_key: self.embed_key.clone(),
            identity: self.identity.clone(),
        }
    }

    /// Writes the configuration and its secrets into a directory that only this user can read, and returns the
    /// configuration's path.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path, addresses: &Addresses) -> io::Result<PathBuf> {
        let keys = [&self.identity, &self.step_up, &self.assertion, &self.session];
        for (name, key) in ["identity.key", "step-up.key", "assertion.key", "session.key"].into_iter().zip(keys) {
            std::fs::write(dir.join(name), key.expose())?;
        }
        let config = dir.join("doorward.toml");
        std::fs::write(&config, self.config(dir, addresses))?;
        Ok(config)
    }

    /// The configuration: one tenant, verified users where they say so, and approvals only after a step-up.
    pub fn config(&self, dir: &Path, addresses: &Addresses) -> String {
        let Addresses { listen, admin, upstream, .. } = addresses;
        let [localhost, numbered] = addresses.origins();
        let file = |name: &str| toml::Value::String(dir.join(name).display().to_string());
        format!(
            r#"[server]
listen = "{listen}"
admin = "{admin}"
drain_delay = "0s"

[upstream]
address = "{upstream}"

[assertion]
schemes = ["http-message-signatures"]
audience = "{AUDIENCE}"
keys = [{{ id = "{KEY_ID}", file = {assertion} }}]

[session]
keys = [{{ id = "s1", file = {session} }}]

[[tenant]]
id = "acme"
preset = "none"
embed_keys = ["{embed_key}"]
origins = ["{localhost}", "{numbered}"]
secrets = [
  {{ id = "identity", format = "jwt", file = {identity} }},
  {{ id = "step-up", format = "karta-v2", file = {step_up} }},
]

[[tenant.claims.step_up]]
claim = "amr"
values = ["mfa"]

[[tenant.route]]
path = "/approvals/*"
methods = ["POST"]
require = "stepped_up"
max_age = "5m"
"#,
            assertion = file("assertion.key"),
            identity = file("identity.key"),
            step_up = file("step-up.key"),
            session = file("session.key"),
            embed_key = self.embed_key,
        )
    }

    /// Commands with tokens that are good from `now` for an hour, step-ups for five minutes.
    ///
    /// # Errors
    /// When a token cannot be signed.
    pub fn curl_lines(&self, gateway: SocketAddr, page: &str, now: UnixTime) -> io::Result<Vec<CurlLine>> {
        let user = |exp: u64| json!({ "sub": "user_123", "name": "Ada", "email": "ada@example.com", "exp": exp });
        let hour = now.secs().saturating_add(3600);
        let good = jwt(&self.identity, &user(hour))?;
        let forged = jwt(&KeyBytes::new(random_hex()?.into_bytes()), &user(hour))?;
        let expired = jwt(&self.identity, &user(now.secs().saturating_sub(3600)))?;
        let stepped_up = mint::karta_v2(self.step_up.expose(), "user_123", now.secs(), Some("mfa"));
        let line = |title, path: &str, extra: &[&str]| CurlLine { title, command: self.curl(gateway, page, path, extra) };
        let bearer = |token: &str| format!("Authorization: Bearer {token}");
        Ok(vec![
            line("Anonymous: the agent greets a stranger", "/chat", &[]),
            line("Verified: the host's backend signed who is talking", "/chat", &[&bearer(&good)]),
            line("Forged: signed with another secret, so 401 token_signature_invalid", "/chat", &[&bearer(&forged)]),
            line("Expired: 401 token_expired", "/chat", &[&bearer(&expired)]),
            line("Step-up needed: a good token is not enough here, 401 step_up_required", "/approvals/7", &[&bearer(&good)]),
            line("Step-up done: the same call with a fresh step-up", "/approvals/7", &[&bearer(&stepped_up)]),
            line(
                "Spoofed header: the agent still sees an anonymous caller, and this is all it gets",
                "/echo",
                &["X-Identity-Subject: user_123", "X-Identity-Level: verified"],
            ),
        ])
    }

    fn curl(&self, gateway: SocketAddr, page: &str, path: &str, extra: &[&str]) -> String {
        let key = format!("X-Embed-Key: {}", self.embed_key);
        let origin = format!("Origin: {page}");
        let headers = [origin.as_str(), key.as_str(), "Content-Type: application/json"].into_iter().chain(extra.iter().copied());
        let headers: Vec<_> = headers.map(|h| format!("  -H '{h}' \\\n")).collect();
        format!("curl -sN http://{gateway}{path} \\\n{}  -d '{{\"message\":\"hi\"}}'", headers.concat())
    }
}

/// 64 hex digits of fresh randomness.
fn random_hex() -> io::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::from)?;
    Ok(hex::encode(bytes))
}

fn jwt(key: &KeyBytes, claims: &Value) -> io::Result<String> {
    mint::jwt(key.expose(), Algorithm::HS256, None, claims).map_err(|e| io::Error::other(e.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_its_own_secrets_and_a_configuration_that_is_toml() {
        let (one, two) = (Demo::new().unwrap(), Demo::new().unwrap());
        assert_ne!((&one.embed_key, &one.identity), (&two.embed_key, &two.identity));
        let dir = tempfile::tempdir().unwrap();
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let addresses = Addresses { listen: address(1), admin: address(2), upstream: address(3), page: address(4) };
        let path = one.write(dir.path(), &addresses).unwrap();
        let config: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
        let secret = config["tenant"][0]["secrets"][0]["file"].as_str().unwrap();
        assert_eq!(std::fs::read(secret).unwrap(), one.identity.expose());
        assert_eq!(config["upstream"]["address"].as_str(), Some("127.0.0.1:3"));
    }

    #[test]
    fn every_outcome_has_its_command() {
        let demo = Demo::new().unwrap();
        let lines =
            demo.curl_lines(SocketAddr::from(([127, 0, 0, 1], 8080)), "http://localhost:8000", UnixTime::from_secs(1_800_000_000)).unwrap();
        assert_eq!(lines.len(), 7);
        for line in lines {
            assert!(line.command.starts_with("curl -sN http://127.0.0.1:8080/"), "{}", line.command);
            assert!(line.command.contains(&demo.embed_key) && line.command.matches('\'').count() % 2 == 0, "{}", line.command);
        }
    }
}
