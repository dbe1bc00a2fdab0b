"""Reads what deploy/ ships for Prometheus and Grafana, and finds what refers to something that is not there.

    python3 names.py REPOSITORY DOORWARD

- Metrics, and the labels they are asked by, of rules, alerts and dashboard stand in the table of src/manual/operation.md (which
  a test compares with a scrape), or are recorded by rules.yml under a name of the form level:metric:operations.
- Every alert says what is wrong, what to do and in which section of src/manual/monitoring.md; that has no other sections of
  alerts. Reasons that are named have a row in `doorward explain`.
- Every alert has a unit test in which it fires and one in which it does not, at each severity.
- The dashboard is what Grafana's own library of its formats understands, to the last field.
"""

import json
import pathlib
import re
import subprocess
import sys

import yaml

root, doorward = pathlib.Path(sys.argv[1]), sys.argv[2]
wrong = []


def said(condition, sentence):
    if not condition:
        wrong.append(sentence)


def read(path):
    return (root / path).read_text(encoding="utf-8")


def rules(path):
    return [rule for group in yaml.safe_load(read(path))["groups"] for rule in group["rules"]]


# The table: name, labels. Histograms are the two without labels that end in _seconds and are no timestamp.
table = {}
for name, labels in re.findall(r"^\| `(doorward_\w+)` \| ([^|]*)\|", read("src/manual/operation.md"), re.M):
    table[name] = set(re.findall(r"`(\w+)`", labels))
for name in ("doorward_decision_seconds", "doorward_upstream_seconds"):
    del table[name]
    table |= {f"{name}_bucket": {"le"}, f"{name}_sum": set(), f"{name}_count": set()}
# What every scraped series has.
TARGET = {"job", "instance"}

recorded, alerts = rules("deploy/prometheus/rules.yml"), rules("deploy/prometheus/alerts.yml")
names = {rule["record"] for rule in recorded}
for name in names:
    said(re.fullmatch(r"[a-z_]+:doorward_[a-z_]+:[a-z_]*(rate|p99_rate)\d+[mhd]", name), f"{name} is not level:metric:operations")


def expression(where, text):
    for name in re.findall(r"[a-z_]+:[a-z_]+:\w+", text):
        said(name in names, f"{where}: {name} is not recorded")
    for name, selector in re.findall(r"(?<![:\w])(doorward_\w+)(?![:\w])(?:\{([^}]*)\})?", text):
        said(name in table, f"{where}: there is no metric {name}")
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", selector):
            said(label in table.get(name, set()) | TARGET, f"{where}: {name} has no label {label}")
    for literal in re.findall(r"reason(?:=~|!~|!=|=)\"([^\"]*)\"", text):
        for reason in literal.split("|"):
            known(where, reason)


reasons = re.findall(r"^\| `(\w+)` \|", read("src/manual/reasons.md"), re.M)


def known(where, pattern):
    said(any(re.fullmatch(pattern, reason) for reason in reasons), f"{where}: no reason is {pattern}")


for rule in recorded:
    expression(rule["record"], rule["expr"])
    # The level is what is kept beside the job, by the first aggregation or the first rule that is built on.
    kept = re.search(r"by \(([^)]*)\)|([a-z_]+):doorward", rule["expr"])
    level = kept[2] or "_".join(label for label in kept[1].split(", ") if label not in ("job", "le")) or "job"
    said(rule["record"].startswith(f"{level}:"), f"{rule['record']} keeps {level}")

manual = read("src/manual/monitoring.md")
sections = set(re.findall(r"^### (Doorward\w+)$", manual, re.M))
said(sections == {rule["alert"] for rule in alerts}, f"sections and alerts differ: {sections ^ {rule['alert'] for rule in alerts}}")
for rule in alerts:
    where, notes = rule["alert"], rule["annotations"]
    expression(where, rule["expr"])
    said(set(notes) == {"summary", "description", "runbook"}, f"{where}: has {sorted(notes)}")
    said(notes["runbook"] == f"src/manual/monitoring.md#{where.lower()}", f"{where}: runbook {notes['runbook']}")
    said(rule["labels"]["severity"] in ("critical", "warning", "info"), f"{where}: severity {rule['labels']}")
    for reason in re.findall(r"\b((?:token|embed_key|gateway|upstream)_[a-z_]+)\b", notes["description"]):
        known(where, reason)
for reason in sorted({r for r in re.findall(r"doorward explain (\w+)", read("deploy/prometheus/alerts.yml")) if r.islower()}):
    ran = subprocess.run([doorward, "explain", reason], capture_output=True, check=False)
    said(ran.returncode == 0, f"doorward explain {reason}: exit code {ran.returncode}")

fires, silent = set(), set()
groups = [group["name"] for path in ("rules", "alerts") for group in yaml.safe_load(read(f"deploy/prometheus/{path}.yml"))["groups"]]
for path in sorted((root / "deploy/prometheus/tests").glob("*.yml")):
    tests = yaml.safe_load(path.read_text(encoding="utf-8"))
    said(tests["group_eval_order"] == groups, f"{path.name}: group_eval_order is not that of the groups, {groups}")
    for group in tests["tests"]:
        for case in group.get("alert_rule_test", []):
            expected = {(case["alertname"], alert["exp_labels"]["severity"]) for alert in case["exp_alerts"]}
            fires |= expected
            silent |= {(case["alertname"], severity) for severity in ("critical", "warning", "info")} - expected
for rule in alerts:
    key = (rule["alert"], rule["labels"]["severity"])
    said(key in fires, f"{key}: no test in which it fires")
    said(key in silent, f"{key}: no test in which it does not")

dashboard = json.loads(read("deploy/grafana/doorward.json"))
panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
for panel in panels:
    for target in panel["targets"]:
        expression(f"panel {panel['title']}", target["expr"])
titles, ids = [panel["title"] for panel in panels], [panel["id"] for panel in dashboard["panels"]]
said(len(set(titles)) == len(titles) and len(set(ids)) == len(ids), "two panels with one title or id")
variables = {variable["name"] for variable in dashboard["templating"]["list"]}
used = set(re.findall(r"\$\{?(\w+)", json.dumps([panels, dashboard["annotations"]])))
said(used - variables <= {"__rate_interval", "__range"}, f"variables that are not there: {used - variables}")
# Panels lie side by side in 24 columns, and none on another.
cells = set()
for panel in dashboard["panels"]:
    at = panel["gridPos"]
    own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
    said(not own & cells and at["x"] + at["w"] <= 24, f"panel {panel['title']} lies on another, or beyond the edge")
    cells |= own

for path in sorted((root / "deploy/grafana/provisioning").rglob("*.yaml")):
    said(yaml.safe_load(path.read_text(encoding="utf-8"))["apiVersion"] == 1, f"{path}: apiVersion")


def understood(given, kept, where=""):
    """What the library forgot of what it was given, or says otherwise."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            said(key in kept, f"dashboard{where}: Grafana has no field {key}")
            if key in kept:
                understood(value, kept[key], f"{where}/{key}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for index, (first, second) in enumerate(zip(given, kept)):
            understood(first, second, f"{where}/{index}")
    else:
        said(given == kept, f"dashboard{where}: {given!r} became {kept!r}")


try:
    from grafana_foundation_sdk.cog import encoder, plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    made = Dashboard.from_json(dashboard)
    understood(dashboard, json.loads(json.dumps(made, cls=encoder.JSONEncoder)))
    said(dashboard["schemaVersion"] == Dashboard().schema_version, f"schemaVersion {dashboard['schemaVersion']}")
    formats = f"read whole by Grafana's library, schema {dashboard['schemaVersion']}"
except ImportError:
    formats = "NOT read by Grafana's library, which wants Python 3.11"

if wrong:
    sys.exit("\n".join(wrong))
print(f"ok: {len(alerts)} alerting rules, {len(names)} recorded, {len(panels)} panels: every metric, label and reason exists")
print(f"ok: every alert has a section, a test in which it fires and one in which it does not; the dashboard is {formats}")
