"""What stands in for a cluster where the manual's commands are run: `cluster.py kubectl|helm ARGUMENTS...`, by kubernetes.sh.

Nothing is made up that can be had: Secrets come from the real `kubectl create --dry-run=client`, manifests from the real `kubectl
kustomize` and `helm template`, and a forwarded port leads to a real gateway with the rendered configuration, the created Secret and
an agent that verifies. What it does not know, it refuses. $CLUSTER is its folder, $KUBECTL and $HELM the real programs, $AGENT where
an agent listens.
"""

import base64
import json
import os
import pathlib
import re
import subprocess
import sys

import yaml

STATE = pathlib.Path(os.environ["CLUSTER"])


def run(program, *arguments):
    return subprocess.run([os.environ[program], *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def applied(kind, name):
    """What was applied last under this name."""
    for file in sorted(STATE.glob("applied-*"), reverse=True):
        for document in yaml.safe_load_all(file.read_text()):
            if document and (document["kind"], document["metadata"]["name"]) == (kind, name):
                return document
    sys.exit(f'Error from server (NotFound): {kind} "{name}" not found')


def apply(text):
    (STATE / f"applied-{len(list(STATE.glob('applied-*'))):03}").write_text(text)
    for document in yaml.safe_load_all(text):
        print(f"{document['kind'].lower()}/{document['metadata']['name']} applied")


def secret(name):
    return json.loads((STATE / f"secret-{name}").read_text())


def keep(made):
    (STATE / f"secret-{made['metadata']['name']}").write_text(json.dumps(made))
    print(f"secret/{made['metadata']['name']}")


def forward(name, here, there):
    """Becomes the gateway to which the Service's port leads."""
    service = applied("Service", name)["spec"]
    [port] = [p for p in service["ports"] if p["port"] == int(there)]
    pods = [d for f in STATE.glob("applied-*") for d in yaml.safe_load_all(f.read_text()) if d and d["kind"] == "Deployment"]
    pods = [d["spec"]["template"] for d in pods if service["selector"].items() <= d["spec"]["template"]["metadata"]["labels"].items()]
    pod = pods[-1]["spec"]
    [gateway] = [c for c in pod["containers"] for p in c.get("ports") or [] if p.get("name") == port["targetPort"]]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in gateway["volumeMounts"]}
    folder = STATE / f"forward-{here}"
    (folder / "secrets").mkdir(parents=True)
    for key, value in secret(mounts["/etc/doorward/secrets"]["secret"]["secretName"])["data"].items():
        (folder / "secrets" / key).write_bytes(base64.b64decode(value))
    text = applied("ConfigMap", mounts["/etc/doorward"]["configMap"]["name"])["data"]["doorward.toml"]
    # The ports of this machine, and nothing else.
    for key, value in [("listen", f"127.0.0.1:{here}"), ("admin", "127.0.0.1:0"), ("probes", "127.0.0.1:0"), ("address", os.environ["AGENT"])]:
        text, count = re.subn(rf'^{key} = ".*"', f'{key} = "{value}"', text, flags=re.MULTILINE)
        assert count == 1, key
    (folder / "doorward.toml").write_text(text.replace('"/etc/doorward/', f'"{folder}/'))
    arguments = [argument.replace("/etc/doorward", str(folder)) for argument in gateway["args"]]
    os.execv(os.environ["DOORWARD"], ["doorward", *arguments])


match sys.argv[1:]:
    case ["kubectl", "create", "secret", *rest]:
        keep(json.loads(run("KUBECTL", "create", "secret", *rest, "--dry-run=client", "--output=json")))
    case ["kubectl", "patch", "secret", name, "--type=merge", "-p", patch]:
        made = secret(name)
        for key, value in json.loads(patch)["stringData"].items():
            made["data"][key] = base64.b64encode(value.encode()).decode()
        keep(made)
    case ["kubectl", "get", "secret", name, "-o", template] if key := re.fullmatch(r"jsonpath=\{\.data\.([a-z]+)\}", template):
        print(secret(name)["data"][key[1]], end="")
    case ["kubectl", "apply", "-k", folder]:
        apply(run("KUBECTL", "kustomize", folder))
    case ["kubectl", "rollout", "status", deployment] if deployment.startswith("deployment/"):
        applied("Deployment", deployment.removeprefix("deployment/"))
    case ["kubectl", "port-forward", service, ports] if service.startswith("service/"):
        forward(service.removeprefix("service/"), *ports.split(":"))
    case ["helm", "upgrade", "--install", *rest]:
        apply(run("HELM", "template", *rest))
    case other:
        sys.exit(f"no stand-in for: {' '.join(other)}")
