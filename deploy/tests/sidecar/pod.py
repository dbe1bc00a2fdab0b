"""Turns a rendered Deployment into the Pod that podman runs, and plays the kubelet's part with its volumes. Run by sidecar.sh:

    pod.py make RENDERED NAME FOLDER     prints the Pod; FOLDER/VOLUME holds each volume
    pod.py fact RENDERED WHAT            prints what the kubelet would do: see `fact`
    pod.py swap VOLUME FILE...           fills FOLDER/VOLUME as the kubelet does, or swaps it: the files, and `..data` that names them

What is changed, and why:
- A Deployment is a template of Pods; one is made of it.
- podman 4.3 has neither Secrets nor ConfigMaps that change: both are folders of this machine.
- It knows no preStop, and asks probes by a `curl` inside the container: sidecar.sh does both, as the kubelet would.
- It opens on this machine what `ports` says, which are only words in a cluster: they are left out.
- It removes init containers that have done their work, log and all: it is told not to.
- A container that has ended stays ended, as in a Pod that is being deleted.
"""

import json
import os
import pathlib
import shutil
import sys
import time

import yaml


def deployment(rendered):
    return next(d for d in yaml.safe_load_all(pathlib.Path(rendered).read_text()) if d and d["kind"] == "Deployment")


def make(rendered, name, folder):
    template = deployment(rendered)["spec"]["template"]
    spec = template["spec"]
    for volume in spec["volumes"]:
        place = pathlib.Path(folder, volume["name"])
        place.mkdir(parents=True, exist_ok=True)
        for kind in ["configMap", "secret"]:
            volume.pop(kind, None)
        volume["hostPath"] = {"path": str(place), "type": "Directory"}
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        for key in ["startupProbe", "livenessProbe", "readinessProbe", "lifecycle", "ports"]:
            container.pop(key, None)
        # The kubelet makes the folder on which another volume is mounted.
        mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
        for path in mounts:
            for outer, volume in mounts.items():
                if path.startswith(f"{outer}/"):
                    pathlib.Path(folder, volume, os.path.relpath(path, outer)).mkdir(parents=True, exist_ok=True)
    spec["restartPolicy"] = "Never"
    metadata = {"name": name, "labels": template["metadata"]["labels"], "annotations": {"io.podman.annotations.init.container.type": "always"}}
    print(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))


def fact(rendered, what):
    """grace: seconds until SIGKILL; sleep:CONTAINER: seconds of preStop; probe:KIND: path and port of the gateway's probe, as
    `PORT/PATH`; exec:CONTAINER: its readiness command as JSON; port: where the Service leads."""
    documents = [d for d in yaml.safe_load_all(pathlib.Path(rendered).read_text()) if d]
    spec = deployment(rendered)["spec"]["template"]["spec"]
    containers = {container["name"]: container for container in spec["containers"]}
    ports = {p.get("name"): p["containerPort"] for c in spec["containers"] for p in c.get("ports") or []}
    what, _, which = what.partition(":")
    if what == "grace":
        return spec["terminationGracePeriodSeconds"]
    if what == "sleep":
        return containers[which].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if what == "probe":
        asked = containers["doorward"][f"{which}Probe"]["httpGet"]
        return f"{ports[asked['port']]}{asked['path']}"
    if what == "exec":
        return json.dumps(containers[which]["readinessProbe"]["exec"]["command"])
    if what == "port":
        [port] = next(d for d in documents if d["kind"] == "Service")["spec"]["ports"]
        return ports[port["targetPort"]]
    raise ValueError(what)


def swap(volume, *files):
    """The order of the kubelet's atomic writer: a new folder, a new `..data`, renamed over the old one, the old folder removed."""
    volume = pathlib.Path(volume)
    volume.mkdir(parents=True, exist_ok=True)
    data = volume / "..data"
    old = data.readlink() if data.is_symlink() else None
    new = volume / f"..{time.strftime('%Y_%m_%d_%H_%M_%S')}.{time.monotonic_ns()}"
    new.mkdir()
    for file in files:
        shutil.copyfile(file, new / os.path.basename(file))
        (new / os.path.basename(file)).chmod(0o444)
    (volume / "..data_tmp").symlink_to(new.name)
    (volume / "..data_tmp").rename(data)
    for file in files:
        link = volume / os.path.basename(file)
        if not link.is_symlink():
            link.symlink_to(pathlib.Path("..data", link.name))
    if old:
        shutil.rmtree(volume / old)


if sys.argv[1] == "fact":
    print(fact(*sys.argv[2:]))
else:
    {"make": make, "swap": swap}[sys.argv[1]](*sys.argv[2:])
