"""Is each service of compose.yaml as confined as it says? Called by ../lint.sh.

    compose.py COMPOSE.YAML

Ends with exit code 1 and a line for each thing that is not so.
"""

import pathlib
import sys

import yaml

compose = yaml.safe_load(pathlib.Path(sys.argv[1]).read_text())
folder = pathlib.Path(sys.argv[1]).parent
wrong = []
services = compose["services"]

for name, service in services.items():
    rules = {
        "read_only": service.get("read_only") is True,
        "cap_drop": service.get("cap_drop") == ["ALL"],
        "cap_add": not service.get("cap_add") and not service.get("privileged"),
        "security_opt": "no-new-privileges:true" in service.get("security_opt", []),
        "healthcheck": bool(service.get("healthcheck", {}).get("test")),
        # A tag that moves is no version.
        "image": ":" in service["image"].rsplit("/", 1)[-1] and not service["image"].endswith(":latest"),
        # A secret in the environment is in `docker inspect`.
        "environment": not [k for k in service.get("environment", {}) if k.upper().endswith(("KEY", "SECRET", "PASSWORD", "TOKEN"))],
    }
    wrong += [f"services.{name}.{rule} is not as it should be" for rule, holds in rules.items() if not holds]
    for volume in service.get("volumes", []):
        source, _, rest = volume.partition(":")
        if source.startswith(".") and not rest.endswith(":ro"):
            wrong.append(f"services.{name}: {source} can be written to")
        if source.startswith(".") and not (folder / source).exists():
            wrong.append(f"services.{name}: {source} is not there")

# Nothing reaches the agent around the gateway: no port, one network, which has no way out and the gateway as its only other member.
agent = services["agent"]
if agent.get("ports") or agent.get("network_mode") or agent.get("networks") != ["agent"]:
    wrong.append("services.agent can be reached around the gateway")
if not compose["networks"]["agent"].get("internal"):
    wrong.append("networks.agent has a way out")
if (members := {n for n, s in services.items() if "agent" in s.get("networks", [])}) != {"agent", "doorward"}:
    wrong.append(f"networks.agent has other members: {sorted(members)}")
# Only the gateway's port is open to other machines.
for name, service in services.items():
    for port in service.get("ports", []):
        if name != "doorward" and not port.startswith("127.0.0.1:"):
            wrong.append(f"services.{name}: port {port} is open to other machines")

if wrong:
    sys.exit("\n".join(wrong))
print(f"ok: the {len(services)} services of compose.yaml have a read-only root, no capability and a healthcheck")
print("ok: the agent has no port, and no network but the one that it shares with the gateway alone")
