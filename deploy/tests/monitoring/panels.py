"""Asks a Prometheus what a dashboard's panels ask, and compares with what is expected.

    python3 panels.py URL scraped                    waits until the gateway was scraped, begun after now
    python3 panels.py URL compare DASHBOARD EXPECTED every query of every panel, at the time of the latest scrape
    python3 panels.py URL rules ALERT...             every rule is evaluated without an error, and these alerts are not inactive

Counters begin at 0 and the query is asked at the very time of a scrape, so Prometheus has nothing to extrapolate and an increase
is the exact number. EXPECTED has an entry for every panel and annotation, by its title: for each query (refId), by legend, a number, or

    {"count": N}            N in the whole range: a rate is N by its seconds, which are 600
    {"of": [N, M]}          a share
    {"time": "RFC 3339"}    in milliseconds, as Grafana wants it
    {"between": [LOW, HIGH]}
    {"recent": SECONDS}     a time in milliseconds, at most that long ago
    {"label": VALUE, …}     for tables: rows are [{labels and "value"}]
"""

import datetime
import json
import math
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

RANGE = 600
url = sys.argv[1]


def api(path, **parameters):
    """Prometheus' answer; None while it does not answer."""
    query = urllib.parse.urlencode(parameters)
    try:
        with urllib.request.urlopen(f"{url}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        if error.code == 503:
            return None
        raise SystemExit(f"{parameters}: {error.read().decode()}")
    except (urllib.error.URLError, ConnectionError):
        return None


def latest():
    """When the gateway was last scraped with success. Of a selector alone: of any other expression, timestamp() is the time asked for."""
    found = api("query", query='timestamp(doorward_build_info{job="doorward"})')
    return float(found["result"][0]["value"][1]) if found and found["result"] else 0


def scraped():
    begun = time.time()
    while latest() <= begun:
        if time.time() > begun + 20:
            sys.exit("Prometheus does not scrape the gateway")
        time.sleep(0.05)


def queries(dashboard):
    """(title, refId, expression, legend, whether it is a table's)"""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["refId"], target["expr"], target["legendFormat"], panel["type"] == "table"
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield annotation["name"], "A", annotation["expr"], "{{instance}}", False


def substituted(expression):
    """As Grafana does where everything is selected."""
    for name in ("job", "instance", "tenant"):
        expression = expression.replace(f"${name}", ".*")
    expression = re.sub(r"\$__(rate_interval|range)\b", f"{RANGE}s", expression)
    if "$" in expression:
        sys.exit(f"a variable that is not known here: {expression}")
    return expression


def fits(expected, value, now):
    match expected:
        case {"count": count}:
            return math.isclose(value, count / RANGE, abs_tol=1e-12, rel_tol=1e-9)
        case {"of": [part, whole]}:
            return math.isclose(value, part / whole, rel_tol=1e-9)
        case {"time": text}:
            return value == datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000
        case {"between": [low, high]}:
            return low <= value <= high
        case {"recent": seconds}:
            return 0 <= now - value / 1000 <= seconds
        case float() | int():
            return math.isclose(value, expected, abs_tol=1e-9)
    sys.exit(f"not an expectation: {expected}")


def compare(dashboard, expected):
    wrong, asked, now = [], 0, latest()
    instance = {}
    seen = set()
    for title, ref, expression, legend, table in queries(dashboard):
        seen.add((title, ref))
        want = expected.get(title, {}).get(ref)
        if want is None:
            wrong.append(f"{title} {ref}: no expectation")
            continue
        answer = api("query", query=substituted(expression), time=f"{now:.3f}")["result"]
        asked += 1
        got = {}
        for series in answer:
            labels = {name: value for name, value in series["metric"].items() if name != "__name__"}
            # The port is another in every run.
            labels = {name: "HERE" if name == "instance" else re.sub(r"^127\.0\.0\.1:\d+$", "HERE", value) for name, value in labels.items()}
            name = ", ".join(f"{k}={labels[k]}" for k in sorted(labels)) if table else re.sub(r"\{\{(\w+)\}\}", lambda m: labels.get(m[1], ""), legend)
            if name in got:
                wrong.append(f"{title} {ref}: two series called {name}")
            got[name] = float(series["value"][1])
        for name in want.keys() - got.keys():
            wrong.append(f"{title} {ref}: {name} is missing; there are {got}")
        for name in got.keys() - want.keys():
            wrong.append(f"{title} {ref}: {name} = {got[name]} was not expected")
        for name in want.keys() & got.keys():
            if not fits(want[name], got[name], now):
                wrong.append(f"{title} {ref}: {name} is {got[name]}, expected {want[name]}")
    for title, entry in expected.items():
        wrong += [f"{title} {ref}: expected, but no such query" for ref in entry if (title, ref) not in seen]
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"ok: {asked} queries of {len({title for title, _ in seen})} panels and annotations gave the expected numbers")


def rules(alerts):
    deadline = time.time() + 20
    while True:
        all_rules = [rule for group in (api("rules") or {"groups": []})["groups"] for rule in group["rules"]]
        broken = [f"{rule['name']}: {rule.get('lastError')}" for rule in all_rules if rule["health"] == "err"]
        if broken:
            sys.exit("\n".join(broken))
        states = {rule["name"]: rule["state"] for rule in all_rules if rule["type"] == "alerting" and rule["state"] != "inactive"}
        if all_rules and all(rule["health"] == "ok" for rule in all_rules) and set(alerts) <= states.keys():
            break
        if time.time() > deadline:
            sys.exit(f"{sorted(set(alerts) - states.keys())} inactive; not so are {states}")
        time.sleep(0.1)
    print(f"ok: {len(all_rules)} rules evaluated; alerts raised by this: {', '.join(sorted(states))}")


match sys.argv[2:]:
    case ["scraped"]:
        scraped()
    case ["compare", dashboard, expected]:
        with open(dashboard, encoding="utf-8") as first, open(expected, encoding="utf-8") as second:
            compare(json.load(first), json.load(second))
    case ["rules", *alerts]:
        rules(alerts)
    case _:
        sys.exit(__doc__)
