//! `doorward demo`: a host product with its page, an agent, the gateway between them, and commands to paste. Needs no file and
//! leaves none.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;

use super::run;
use crate::clock;
use crate::demo::{Addresses, Demo as Parts, agent, host};

/// Run a signed-in page, an agent and the gateway between them, and print commands to try.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Everything is made for this run and gone after Ctrl-C: secrets, configuration, tokens.\n\nExample:\n  doorward demo --listen 127.0.0.1:8080"
)]
pub struct Demo {
    /// Where the gateway listens; port 0 lets the system choose.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    listen: SocketAddr,
    /// Where its admin listener is.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090", value_parser = address)]
    admin: SocketAddr,
    /// Where the host product's page is.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000", value_parser = address)]
    page: SocketAddr,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, like 127.0.0.1:8080".to_owned())
}

impl Demo {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        match self.start() {
            Ok(code) => code,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn start(self) -> std::io::Result<ExitCode> {
        let parts = Parts::new()?;
        let directory = tempfile::tempdir()?; // readable by this user only
        let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        upstream.set_nonblocking(true)?;
        let page = TcpListener::bind(self.page).map_err(|error| std::io::Error::other(format!("{}: {error}", self.page)))?;
        page.set_nonblocking(true)?;
        let addresses = Addresses { listen: self.listen, admin: self.admin, upstream: upstream.local_addr()?, page: page.local_addr()? };
        let config = parts.write(directory.path(), &addresses)?;
        Ok(run::gateway(&config, false, move |gateway, admin| {
            let verifier = parts.verifier().ok_or_else(|| std::io::Error::other("the assertion key cannot be used"))?;
            let upstream = tokio::net::TcpListener::from_std(upstream)?;
            tokio::spawn(agent::serve(upstream, verifier));
            let now = clock::read().map_err(|_| std::io::Error::other("the clock shows a time before 2020"))?;
            let page = tokio::net::TcpListener::from_std(page)?;
            tokio::spawn(host::serve(page, parts.host(&addresses, gateway)));
            let url = addresses.page_url();
            println!("Open {url} in a browser: a signed-in page, whose assistant is reached through doorward on http://{gateway}.\n");
            println!("Or try:\n");
            for line in parts.curl_lines(gateway, &url, now)? {
                println!("# {}\n{}\n", line.title, line.command);
            }
            println!("Status page: http://{admin}/");
            println!("Metrics and status: curl -s http://{admin}/metrics, curl -s http://{admin}/status");
            println!("Each request's audit record appears below. Ctrl-C ends everything.\n");
            Ok(())
        }))
    }
}
