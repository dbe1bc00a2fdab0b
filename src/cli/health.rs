//! `doorward health`: asks the gateway that runs here whether it lives, or whether it is ready. For containers without a shell
//! or curl. Never loads the configuration, so that a broken file, with which the gateway goes on, fails no probe.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode};

use crate::config::probed;
use crate::outbound::{Client, Roots};

/// Most of an answer that is read, in bytes: it is one word or a few.
const LARGEST: usize = 4096;

/// Ask the gateway that runs here whether it lives.
///
/// Asks /livez, or /readyz with --ready, at the configuration's server.probes, or at server.admin where there is none. For a
/// container's HEALTHCHECK, and for probes by exec. Exit code 0: it answered 200. 1: it did not. 2: nobody knows where to ask.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  doorward health --ready -c /etc/doorward/doorward.toml")]
pub struct Health {
    /// The configuration file that the gateway was started with; nothing but the two addresses is read from it.
    #[arg(short, long, value_name = "FILE", default_value = "doorward.toml")]
    config: PathBuf,
    /// Where to ask, instead of reading a configuration.
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "config")]
    address: Option<SocketAddr>,
    /// Ask whether it takes requests: not yet while it fetches issuers' keys, no longer while it drains.
    #[arg(long)]
    ready: bool,
    /// How long to wait for the answer.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl Health {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let address = match self.address.map_or_else(|| self.configured(), Ok) {
            Ok(address) => address,
            Err(why) => {
                eprintln!("error: {}: {why}; or say where by --address", self.config.display());
                return ExitCode::from(2);
            }
        };
        let url = format!("http://{address}/{}", if self.ready { "readyz" } else { "livez" });
        match asked(&url, self.timeout) {
            Ok((StatusCode::OK, said)) => {
                println!("{said}");
                ExitCode::SUCCESS
            }
            Ok((status, said)) => failed(&format!("{url} answered {status}: {said}")),
            Err(why) => failed(&format!("{url}: {why}")),
        }
    }

    fn configured(&self) -> Result<SocketAddr, String> {
        let text = fs::read_to_string(&self.config).map_err(|e| e.to_string())?;
        probed::address(&text).map_err(|untold| untold.to_string())
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}

/// The answer's status, and its text as far as it can be shown.
fn asked(url: &str, within: Duration) -> Result<(StatusCode, String), String> {
    let request = Request::get(url).body(Bytes::new()).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let client = Client::new(Roots::none(), 0)?;
    let answer = runtime.block_on(client.send(request, LARGEST, within)).map_err(|failure| failure.to_string())?;
    let said = String::from_utf8_lossy(&answer.body).trim_end().escape_debug().to_string();
    Ok((answer.status, said))
}
