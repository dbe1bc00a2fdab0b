//! Pingora with nothing in it but a proxy, with Doorward's settings: what the identity work comes on top of.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::modules::http::HttpModules;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use pingora::services::listening::Service;
use pingora::upstreams::peer::HttpPeer;

struct Bare(HttpPeer);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.0.clone()))
    }

    fn suppress_error_log(&self, _: &Session, (): &(), _: &Error) -> bool {
        true
    }
}

/// Serves for ever.
pub(crate) fn serve(port: u16, upstream: u16) {
    let mut peer = HttpPeer::new(std::net::SocketAddr::from(([127, 0, 0, 1], upstream)), false, String::new());
    peer.options.connection_timeout = Some(Duration::from_secs(5));
    peer.options.read_timeout = Some(Duration::from_mins(5));
    peer.options.write_timeout = Some(Duration::from_mins(1));
    peer.options.idle_timeout = Some(Duration::from_secs(4));
    let runtime = pingora_runtime::Runtime::new_no_steal(1, "bare");
    let mut service = Service::new("bare".to_owned(), pingora::proxy::http_proxy(&Arc::new(ServerConf::default()), Bare(peer)));
    service.add_tcp(&format!("127.0.0.1:{port}"));
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let (done, wait) = std::sync::mpsc::channel::<()>();
    runtime.get_handle().spawn(async move {
        service.start_service(None, stopped, 1).await;
        drop(done);
    });
    let _ = wait.recv();
}
