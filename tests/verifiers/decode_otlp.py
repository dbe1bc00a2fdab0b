"""Reads OTLP trace requests (a JSON list of base64 protobuf) and prints their spans as JSON, each with its resource."""

import base64
import json
import sys

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def plain(value):
    return next(iter(value.values()), None)


def attributes(of):
    return {a["key"]: plain(a["value"]) for a in of.get("attributes", [])}


spans = []
for body in json.load(sys.stdin):
    request = MessageToDict(ExportTraceServiceRequest.FromString(base64.b64decode(body)))
    for resource in request.get("resourceSpans", []):
        for scope in resource.get("scopeSpans", []):
            for span in scope["spans"]:
                for name in ("traceId", "spanId", "parentSpanId"):
                    span[name] = base64.b64decode(span.get(name, "")).hex()
                span["attributes"] = attributes(span)
                span["resource"] = attributes(resource["resource"])
                span["scope"] = scope["scope"]["name"]
                spans.append(span)
json.dump(spans, sys.stdout)
