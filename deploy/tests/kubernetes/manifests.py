"""What must hold of rendered manifests beyond their schema: run by kubernetes.sh and helm.sh.

    manifests.py hold MODE FILE        the properties below, one line each; MODE is sidecar or gateway
    manifests.py notice MODE FILE      each property broken on purpose, which must be noticed
    manifests.py config FILE FOLDER    writes the gateway's doorward.toml, with a new secret for each file that it names, to FOLDER

"The gateway" is the container `doorward`; the Pod is that of the one Deployment which has it.
"""

import copy
import math
import pathlib
import re
import secrets
import sys
import tomllib

import yaml

CONFIG, SECRETS = "/etc/doorward", "/etc/doorward/secrets"
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


class Broken(Exception):
    """A property does not hold."""


def require(holds, text):
    if not holds:
        raise Broken(text)


def only(items, what):
    items = list(items)
    require(len(items) == 1, f"{len(items)} of: {what}")
    return items[0]


class Manifests:
    def __init__(self, documents):
        self.documents = documents
        has_gateway = lambda d: any(c["name"] == "doorward" for c in d["spec"]["template"]["spec"]["containers"])
        self.deployment = only(filter(has_gateway, self.kind("Deployment")), "Deployments with the gateway")
        self.labels = self.deployment["spec"]["template"]["metadata"]["labels"]
        self.pod = self.deployment["spec"]["template"]["spec"]
        self.gateway = only((c for c in self.pod["containers"] if c["name"] == "doorward"), "containers doorward")
        self.others = [c for c in self.pod["containers"] if c["name"] != "doorward"]
        self.text = only((d for d in self.kind("ConfigMap") if "doorward.toml" in d["data"]), "ConfigMaps")["data"]["doorward.toml"]
        self.config = tomllib.loads(self.text)

    def kind(self, kind):
        return [d for d in self.documents if d["kind"] == kind]

    def selects(self, selector):
        return all(self.labels.get(name) == value for name, value in selector.items())

    def port(self, listener):
        return int(self.config["server"][listener].rpartition(":")[2])

    def container_port(self, name):
        return only((p for p in self.gateway["ports"] if p["name"] == name), f"ports {name}")["containerPort"]

    def target(self, port):
        """The container and number that a Service's port leads to."""
        to = port.get("targetPort", port["port"])
        ports = [(c["name"], p["containerPort"]) for c in self.pod["containers"] for p in c.get("ports") or []
                 if to in (p.get("name"), p["containerPort"])]  # fmt: skip
        return only(ports, f"container ports that a Service calls {to}")

    def drain(self):
        """Seconds from SIGTERM to the gateway's last moment."""
        return sum(seconds(self.config["server"].get(key, default)) for key, default in [("drain_delay", "3s"), ("grace", "25s")])


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", text).groups()
    return int(number) * SECONDS[unit]


# ---- the properties: each raises Broken, or returns what it found


def services_lead_to_the_gateway(m):
    """no Service leads to another container than the gateway"""
    found = []
    for service in m.kind("Service"):
        if m.selects(service["spec"]["selector"]):
            for port in service["spec"]["ports"]:
                container, number = m.target(port)
                require(container == "doorward", f"Service {service['metadata']['name']} leads to {container}")
                found.append(f"{service['metadata']['name']}:{port['port']} to {number}")
    require(any(f.endswith(f" {m.port('listen')}") for f in found), "no Service leads to server.listen")
    return ", ".join(found)


def ports_are_the_configurations(m):
    """the container's ports are those of the configuration, and none but these can be asked from outside"""
    for name, listener in [("doorward", "listen"), ("doorward-probes", "probes")]:
        require(m.container_port(name) == m.port(listener), f"port {name} is not server.{listener}")
        require(not m.config["server"][listener].startswith("127."), f"server.{listener} is on loopback")
    require(m.config["server"].get("admin", "127.").startswith("127."), "server.admin is open")
    for container in m.pod["containers"]:
        for port in container.get("ports") or []:
            require(len(port.get("name", "")) <= 15, f"{port['name']}: longer than 15 characters")
            require("hostPort" not in port, "a port of the node")
    require(not m.pod.get("hostNetwork"), "the node's network")
    return f"{m.port('listen')}, {m.port('probes')}"


def policy_lets_in_the_gateways_ports_only(m):
    """the NetworkPolicy of the Pod lets in the gateway's ports, and no other"""
    policies = [p["spec"] for p in m.kind("NetworkPolicy") if m.selects(p["spec"]["podSelector"]["matchLabels"])]
    require(policies and all("Ingress" in p["policyTypes"] for p in policies), "no policy on what comes in")
    rules = [rule for policy in policies for rule in policy["ingress"]]
    require(all(rule.get("ports") for rule in rules), "a rule for all ports")
    ports = {port["port"] for rule in rules for port in rule["ports"]}
    require(ports == {m.port("listen"), m.port("probes")}, f"lets in {sorted(ports)}")
    require(all(rule.get("from") for rule in rules for port in rule["ports"] if port["port"] == m.port("probes")), "metrics for all")
    return ", ".join(map(str, sorted(ports)))


def probes_ask_the_probes_listener(m):
    """startup, liveness and readiness ask server.probes"""
    for probe, path in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
        asked = m.gateway[probe]["httpGet"]
        require((asked["path"], asked["port"]) == (path, "doorward-probes"), f"{probe}: {asked}")
    return "/livez, /readyz"


def containers_are_confined(m):
    """every container: no root, no capability, no way to more, the runtime's seccomp profile, a read-only root; bounded memory"""
    names = []
    for container in [*m.pod.get("initContainers", []), *m.pod["containers"]]:
        names.append(container["name"])
        context = {**m.pod.get("securityContext", {}), **container["securityContext"]}
        require(context.get("runAsNonRoot") is True and context.get("runAsUser") != 0, f"{names[-1]}: root")
        require(context.get("readOnlyRootFilesystem") is True, f"{names[-1]}: a root that can be written")
        require(context.get("allowPrivilegeEscalation") is False and not context.get("privileged"), f"{names[-1]}: escalation")
        require(context.get("capabilities") == {"drop": ["ALL"]}, f"{names[-1]}: capabilities")
        require(context.get("seccompProfile") == {"type": "RuntimeDefault"}, f"{names[-1]}: seccomp")
        require("memory" in container["resources"]["limits"] and "cpu" in container["resources"]["requests"], f"{names[-1]}: resources")
    require(m.pod.get("automountServiceAccountToken") is False, "a token of the API is mounted")
    require(not m.pod.get("shareProcessNamespace"), "one process namespace")
    return ", ".join(names)


def files_can_be_swapped(m):
    """configuration and secrets are whole mounts under names that stay, and doorward check reads them before anything runs"""
    check = m.pod["initContainers"][-1]
    require(check["image"] == m.gateway["image"], "another image checks")
    require(check["args"] == ["check", "-c", f"{CONFIG}/doorward.toml"], f"{check['args']}")
    require(m.gateway["args"] == ["run", "-c", f"{CONFIG}/doorward.toml"], f"{m.gateway['args']}")
    require(check["volumeMounts"] == m.gateway["volumeMounts"], "another configuration is checked")
    mounts = {mount["mountPath"]: mount for mount in m.gateway["volumeMounts"]}
    require(set(mounts) == {CONFIG, SECRETS}, f"{sorted(mounts)}")
    require(all(mount.get("readOnly") and "subPath" not in mount for mount in mounts.values()), "subPath, or writable")
    volumes = {volume["name"]: volume for volume in m.pod["volumes"]}
    name = volumes[mounts[CONFIG]["name"]]["configMap"]["name"]
    require(any(d["metadata"]["name"] == name for d in m.kind("ConfigMap")), f"no ConfigMap {name}")
    require(not m.kind("Secret"), "a Secret stands in the manifests")
    mounted = volumes[mounts[SECRETS]["name"]]["secret"]
    require("items" not in mounted, "some keys only")
    for other in m.others:
        for mount in other.get("volumeMounts", []):
            secret = volumes[mount["name"]].get("secret", {})
            if secret.get("secretName") == mounted["secretName"]:
                require([i["key"] for i in secret.get("items", [])] == ["assertion"], f"{other['name']} gets more than its key")
    return f"ConfigMap {name}, Secret {mounted['secretName']}"


def there_is_time_to_drain(m):
    """drain_delay and grace fit into terminationGracePeriodSeconds, and an agent beside the gateway hears of the end after it"""
    period = m.pod["terminationGracePeriodSeconds"]
    require("preStop" not in m.gateway.get("lifecycle", {}), "the gateway waits by itself")
    last = m.drain() + 1
    for other in m.others:
        sleep = other.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        require(sleep >= m.drain(), f"{other['name']} is told after {sleep} s, the gateway needs {m.drain()} s")
        last = sleep + 5
    require(period >= last, f"{period} s, {last} s are needed")
    return f"{math.ceil(m.drain())} s of {period} s"


def the_agent_is_behind(m):
    """the agent declares no port and is asked on loopback"""
    require(m.others, "no agent")
    for other in m.others:
        require(not other.get("ports"), f"{other['name']} declares ports")
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
            require("exec" in other.get(probe, {"exec": {}}), f"{other['name']}: a {probe} that the kubelet sends to the Pod's address")
    require(m.config["upstream"]["address"].startswith("127.0.0.1:"), "the upstream is elsewhere")
    return m.config["upstream"]["address"]


def only_the_gateway_reaches_the_agent(m):
    """the agent's NetworkPolicy lets in the gateway's Pods on one port, and the gateway's lets out there and to DNS"""
    agents = [p["spec"] for p in m.kind("NetworkPolicy") if not m.selects(p["spec"]["podSelector"]["matchLabels"])]
    agent = only(agents, "policies of the agent")
    rule = only(agent["ingress"], "rules")
    peer = only(rule["from"], "peers")
    require(list(peer) == ["podSelector"] and m.selects(peer["podSelector"]["matchLabels"]), f"lets in {peer}")
    port = only(rule["ports"], "ports")["port"]
    mine = only((p["spec"] for p in m.kind("NetworkPolicy") if p["spec"] is not agent), "policies of the gateway")
    require("Egress" in mine["policyTypes"], "the gateway may ask anybody")
    require(all(rule.get("to") and rule.get("ports") for rule in mine["egress"]), "a rule for all")
    to_agent = [r for r in mine["egress"] if r["to"] == [{"podSelector": agent["podSelector"]}]]
    require([p["port"] for p in only(to_agent, "ways to the agent")["ports"]] == [port], "another port than the agent's")
    require({p["port"] for r in mine["egress"] if r not in to_agent for p in r["ports"]} == {53}, "another way out")
    return str(port)


def it_is_kept_up(m):
    """autoscaler, disruption budget and spread are about this Deployment, whose number of Pods nobody else sets"""
    scaler = only(m.kind("HorizontalPodAutoscaler"), "autoscalers")["spec"]
    target = scaler["scaleTargetRef"]
    require((target["kind"], target["name"]) == ("Deployment", m.deployment["metadata"]["name"]), f"{target}")
    require(scaler["minReplicas"] >= 2 and "replicas" not in m.deployment["spec"], "replicas")
    budget = only(m.kind("PodDisruptionBudget"), "budgets")["spec"]
    require(m.selects(budget["selector"]["matchLabels"]), "a budget for others")
    spread = m.pod["topologySpreadConstraints"]
    require(all(m.selects(s["labelSelector"]["matchLabels"]) for s in spread), "spread by others")
    return f"{scaler['minReplicas']} to {scaler['maxReplicas']}, by {', '.join(s['topologyKey'] for s in spread)}"


def prometheus_finds_it(m):
    """the ServiceMonitor selects one Service, whose port leads to server.probes"""
    monitor = only(m.kind("ServiceMonitor"), "ServiceMonitors")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    service = only((s for s in m.kind("Service") if wanted <= s["metadata"]["labels"].items()), "Services of the monitor")
    endpoint = only(monitor["endpoints"], "endpoints")
    port = only((p for p in service["spec"]["ports"] if p["name"] == endpoint["port"]), "ports of the monitor")
    require(m.target(port)[1] == m.port("probes") and endpoint["path"] == "/metrics", f"{endpoint}")
    return service["metadata"]["name"]


BOTH = [services_lead_to_the_gateway, ports_are_the_configurations, policy_lets_in_the_gateways_ports_only,
        probes_ask_the_probes_listener, containers_are_confined, files_can_be_swapped, there_is_time_to_drain]  # fmt: skip
PROPERTIES = {
    "sidecar": [*BOTH, the_agent_is_behind],
    "gateway": [*BOTH, only_the_gateway_reaches_the_agent, it_is_kept_up, prometheus_finds_it],
}


# ---- each property, broken


def set_at(path, value):
    """A change of the Deployment with the gateway, or of the first document of a kind where the path begins with one."""

    def change(m):
        kind, *steps = path.split("/")
        at = m.deployment if kind == "Pod" else m.kind(kind)[0]
        steps = [*(["spec", "template", "spec"] if kind == "Pod" else []), *steps]
        for step in steps[:-1]:
            if step == "doorward" or step == "agent":
                at = next(c for c in at if (c["name"] == "doorward") == (step == "doorward"))
            else:
                at = at[int(step)] if step.isdigit() else at.setdefault(step, {})
        at[steps[-1]] = value

    return change


def configured(old, new):
    def change(m):
        text = m.text.replace(old, new)
        require(text != m.text, f"nothing to break: {old}")
        config_map = next(d for d in m.kind("ConfigMap") if "doorward.toml" in d["data"])
        config_map["data"]["doorward.toml"] = text

    return change


BREAK_BOTH = [
    (set_at("Pod/containers/doorward/ports", [{"name": "doorward", "containerPort": 8081}]), ports_are_the_configurations),
    (configured("0.0.0.0:9091", "127.0.0.1:9091"), ports_are_the_configurations),
    (configured('admin = "127.0.0.1', 'admin = "0.0.0.0'), ports_are_the_configurations),
    (set_at("Pod/hostNetwork", True), ports_are_the_configurations),
    (configured("0.0.0.0:9091", "0.0.0.0:3000"), policy_lets_in_the_gateways_ports_only),
    (set_at("Pod/containers/doorward/readinessProbe/httpGet/path", "/livez"), probes_ask_the_probes_listener),
    (set_at("Pod/containers/doorward/securityContext/capabilities", {}), containers_are_confined),
    (set_at("Pod/containers/doorward/securityContext/runAsUser", 0), containers_are_confined),
    (set_at("Pod/shareProcessNamespace", True), containers_are_confined),
    (set_at("Pod/containers/doorward/volumeMounts/0/subPath", "doorward.toml"), files_can_be_swapped),
    (set_at("Pod/initContainers/0/image", "busybox"), files_can_be_swapped),
    (configured('grace = "25s"', 'grace = "50s"'), there_is_time_to_drain),
    (set_at("Pod/terminationGracePeriodSeconds", 20), there_is_time_to_drain),
]
BREAK = {
    "sidecar": [
        *BREAK_BOTH,
        (set_at("Pod/containers/agent/ports", [{"name": "http", "containerPort": 3000}]), the_agent_is_behind),
        (set_at("Pod/containers/agent/readinessProbe", {"tcpSocket": {"port": 3000}}), the_agent_is_behind),
        (configured("127.0.0.1:3000", "agent:80"), the_agent_is_behind),
        (set_at("Pod/containers/agent/lifecycle", {}), there_is_time_to_drain),
        (set_at("Service/spec/ports/0/targetPort", 3000), services_lead_to_the_gateway),
        (set_at("NetworkPolicy/spec/ingress/0/ports/0/port", 3000), policy_lets_in_the_gateways_ports_only),
        (set_at("NetworkPolicy/spec/ingress", [{}]), policy_lets_in_the_gateways_ports_only),
    ],
    "gateway": [
        *BREAK_BOTH,
        (set_at("HorizontalPodAutoscaler/spec/scaleTargetRef/name", "other"), it_is_kept_up),
        (set_at("Deployment/spec/replicas", 1), it_is_kept_up),
        (set_at("PodDisruptionBudget/spec/selector/matchLabels", {"app": "other"}), it_is_kept_up),
        (set_at("ServiceMonitor/spec/endpoints/0/port", "http"), prometheus_finds_it),
        (set_at("ServiceMonitor/spec/selector/matchLabels", {"metrics": "other"}), prometheus_finds_it),
    ],
}


def read(file):
    return [document for document in yaml.safe_load_all(pathlib.Path(file).read_text()) if document]


def hold(mode, file):
    m = Manifests(read(file))
    for holds in PROPERTIES[mode]:
        print(f"ok: {holds.__doc__}: {holds(m)}")


def notice(mode, file):
    documents = read(file)
    for change, holds in BREAK[mode]:
        broken = copy.deepcopy(documents)
        change(Manifests(broken))
        try:
            holds(Manifests(broken))
        except Broken:
            continue
        sys.exit(f"not noticed: {holds.__name__}, number {BREAK[mode].index((change, holds)) + 1}")
    print(f"ok: {len(BREAK[mode])} ways to break these are noticed")


def config(file, folder):
    m, folder = Manifests(read(file)), pathlib.Path(folder)
    (folder / "secrets").mkdir(parents=True)
    for name in re.findall(rf'file = "{SECRETS}/([^"]+)"', m.text):
        (folder / "secrets" / name).write_text(secrets.token_urlsafe(32))
    (folder / "doorward.toml").write_text(m.text.replace(f'"{CONFIG}/', f'"{folder.resolve()}/'))


try:
    {"hold": hold, "notice": notice, "config": config}[sys.argv[1]](*sys.argv[2:])
except Broken as why:
    sys.exit(f"does not hold: {why}")
