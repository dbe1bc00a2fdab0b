//! `[telemetry]`: where spans are sent. Off unless an `endpoint` is written.

use std::sync::Arc;

use toml::de::DeValue;
use url::Url;

use super::diagnostic::{Code, Diagnostic};
use super::field::{Complaint, Field, Word, kind_of};
use super::known::Shown;
use super::material;
use super::table::Table;
use crate::request::trace::SampleRatio;
use crate::snapshot::TelemetrySettings;

/// What is added to an endpoint (OpenTelemetry's own rule for `OTEL_EXPORTER_OTLP_ENDPOINT`).
const TRACES: &str = "/v1/traces";

/// Reads the table; `None` where it has no endpoint, or a problem was recorded.
pub(super) fn telemetry(table: &Table<'_>) -> Option<TelemetrySettings> {
    let endpoint = table.get::<Endpoint>("endpoint");
    let service_name = table.or("service_name", "doorward".to_owned());
    let sample_ratio = SampleRatio::new(table.or("sample_ratio", Share(1.0)).0)?;
    let ca = material::authorities(table, "ca", "write a PEM file with the certificates that sign the collector's");
    table.finish();
    if !table.seems_to_write("endpoint") {
        for key in ["service_name", "sample_ratio", "ca"].into_iter().filter(|key| table.writes(key)) {
            let title = format!("`{}` does nothing without an endpoint", table.full(key));
            let help = "nothing is sent: add endpoint = \"http://127.0.0.1:4318\", or remove it";
            table.report(Diagnostic::new(Code::NoEffect, table.site_of(key), title).help(help));
        }
    }
    Some(TelemetrySettings { endpoint: endpoint?.value.0, ca: ca.map(Arc::from), service_name, sample_ratio })
}

/// The base address of a collector, `/v1/traces` added.
struct Endpoint(String);

impl Word for Endpoint {
    const EXAMPLE: &'static str = "\"http://127.0.0.1:4318\"";
    const WANTED: &'static str = "an address";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let bad = |help: &str| Complaint::new(Code::BadValue, "is not where OTLP over HTTP can be sent").help(help);
        let url = Url::parse(text).map_err(|_| bad(&format!("write it like {}", <Self as Word>::EXAMPLE)))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("credentials go into the environment: OTEL_EXPORTER_OTLP_HEADERS").hidden());
        }
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(bad("write http:// or https:// and the collector's host and port, 4318 by default"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("write it without what follows the ? or #"));
        }
        let base = url.as_str().trim_end_matches('/');
        if base.ends_with(TRACES) {
            return Err(bad("write the collector's base address: /v1/traces is added to it"));
        }
        Ok(Self(format!("{base}{TRACES}")))
    }
}

/// A number from 0 to 1.
struct Share(f64);

impl Shown for Share {
    fn shown(&self) -> String {
        format!("{:?}", self.0)
    }
}

impl Field for Share {
    const EXAMPLE: &'static str = "0.1";
    const WANTED: &'static str = "a number from 0 to 1";

    fn read(value: &DeValue<'_>) -> Result<Self, Complaint> {
        let number: Option<f64> = match value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) => integer.as_str().parse().ok(),
            other => {
                let complaint = Complaint::new(Code::WrongType, format!("wants a number, not {}", kind_of(other)));
                return Err(complaint.help("write a number from 0 to 1, like 0.1, without quotes"));
            }
        };
        let share = number.filter(|number| SampleRatio::new(*number).is_some());
        share.map(Self).ok_or_else(|| {
            Complaint::new(Code::OutOfRange, "is outside 0 to 1").help("write the share of traces that is sampled, like 0.1")
        })
    }
}
