//! `doorward demo`: an agent, the gateway in front of it, and commands to paste. Needs no file and leaves none.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;

use super::run;
use crate::clock;
use crate::demo::{Demo as Parts, agent};

/// Run an agent with the gateway in front of it, and print commands to try.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Everything is made for this run and gone after Ctrl-C: secrets, configuration, tokens.\n\nExample:\n  doorward demo --listen 127.0.0.1:8080"
)]
pub struct Demo {
    /// Where the gateway listens; port 0 lets the system choose.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where its admin listener is.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
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
        let config = parts.write(directory.path(), self.listen, self.admin, upstream.local_addr()?)?;
        Ok(run::gateway(&config, move |gateway, admin| {
            let verifier = parts.verifier().ok_or_else(|| std::io::Error::other("the assertion key cannot be used"))?;
            let upstream = tokio::net::TcpListener::from_std(upstream)?;
            tokio::spawn(agent::serve(upstream, verifier));
            let now = clock::read().map_err(|_| std::io::Error::other("the clock shows a time before 2020"))?;
            println!("An agent is running, with doorward in front of it on http://{gateway}. Try:\n");
            for line in parts.curl_lines(gateway, now)? {
                println!("# {}\n{}\n", line.title, line.command);
            }
            println!("Metrics and status: curl -s http://{admin}/metrics, curl -s http://{admin}/status");
            println!("Each request's audit record appears below. Ctrl-C ends everything.\n");
            Ok(())
        }))
    }
}
