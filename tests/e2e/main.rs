//! What needs sockets: the real binary in front of a real upstream, asked with bytes and by real clients.

mod gateway;
mod http;
mod upstream;

mod bodies;
mod cors;
mod forwarding;
mod hostile;
mod hygiene;
mod operation;
mod reload;
