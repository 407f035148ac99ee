"""What a wanted replica is made of, as Docker's call to create a container takes it (`POST /containers/create`, API 1.41). Pure.

A container depends on what is in its revision, and on its node, alone: equal revisions on one node are equal containers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from hmcore.apps.records import Allocation
from hmcore.apps.spec import AppSpec, Attachment, ContainerSpec, Logging, Probe, ServiceSpec
from node_agent.container import info, resolvconf, volumes
from node_agent.container.fencing.gates import gate_name
from node_agent.container.info import MOST_GRACE
from node_agent.container.templating import filled_in

_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_.-]")
_LONGEST = 365 * 86_400.0  # seconds; what is longer, or no number, counts as this
_SHORTEST = 0.001  # seconds; Docker refuses less, and takes 0 for "as the image says"

Body = Mapping[str, object]

_DOCKERS_OWN = Logging()
_USUAL = Probe()  # which is what Docker takes where neither container nor image says anything
GATE = "/.hypermesh-exclusive"  # in the container


@dataclass(frozen=True, slots=True)
class Wanted:
    """An allocation of this node, and its generation's spec; None while that is not known here.

    `waiting`: why its first container may not be started yet, in words (what it depends on is not there). Of an exclusive one:
    `barred`: why no container of it may run at all, now; `held`: why none may be started; `lease`: the log index that the node's lease
    began with, under which it may be.
    """

    allocation: Allocation
    app: AppSpec | None
    waiting: str = ""
    barred: str = ""
    held: str = ""
    lease: int = 0

    @property
    def service(self) -> ServiceSpec | None:
        return None if self.app is None else self.app.services.get(self.allocation.service)

    @property
    def exclusive(self) -> bool:
        return self.service is not None and self.service.exclusive


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What all containers of this node have in common.

    `network`: Docker's name of the cluster's network here. `dns`: where the agent answers for services' names; empty: nowhere.
    `cgroup_parent`: as Docker's option takes it. `files`: the directory below which secrets and configs are laid ready (`file_path`).
    `resolvers`: the one for what containers ask for names by (`resolvconf_path`). `gates`: the directory of the gates that are open
    (fencing/gates.py). `address`: the node's own. `logging`: for services that say nothing. `margin`: seconds until other nodes act by what
    this one knows (draining.py).
    """

    cluster: str
    network: str = "hypermesh"
    dns: str = ""
    cgroup_parent: str = ""
    files: str = "/run/hypermesh/files"
    resolvers: str = "/run/hypermesh/resolv"
    gates: str = "/run/hypermesh/fence/open"
    address: str = "127.0.0.1"
    logging: Logging = _DOCKERS_OWN
    margin: float = 0.5


def container_name(allocation: Allocation, service: ServiceSpec) -> str:
    """`APP-SERVICE-SLOT-SERIAL`, of a global service `APP-SERVICE-SERIAL`. Two allocations may come to the same one (`a-b`, `c` and `a`,
    `b-c`): see `second_name`."""
    slot = () if service.mode == "global" else (str(allocation.slot),)
    parts = (allocation.app, allocation.service, *slot, allocation.id.rpartition(".")[2])
    return _NOT_IN_A_NAME.sub("-", "-".join(parts)).lstrip("_.-") or "container"


def second_name(allocation: Allocation, service: ServiceSpec) -> str:
    """Where the first one is taken by somebody else."""
    return f"{container_name(allocation, service)}_{blake2b(allocation.id.encode(), digest_size=6).hexdigest()}"


def file_folder(allocation_id: str) -> str:
    """The name of an allocation's own folder below NodeFacts.files."""
    return allocation_id.replace("/", "@")


def file_path(facts: NodeFacts, allocation_id: str, number: int) -> str:
    """Where attachment `number` of the service's spec is laid ready for one allocation's container, with the owner and mode it asks for."""
    return f"{facts.files}/{file_folder(allocation_id)}/{number}"


def resolvconf_path(facts: NodeFacts, allocation_id: str) -> str:
    """Where the /etc/resolv.conf of one allocation's container is laid ready, if it has one of ours."""
    return f"{facts.resolvers}/{file_folder(allocation_id)}"


def needed_volumes(app: AppSpec, service: ServiceSpec) -> tuple[str, ...]:
    """External volumes, by their names on the node: Docker would make those that are missing, empty."""
    sources = {mount.source for mount in service.container.mounts if mount.kind == "volume"}
    return tuple(sorted(app.volumes[source].name for source in sources if source in app.volumes and app.volumes[source].external))


def creation(wanted: Wanted, app: AppSpec, service: ServiceSpec, facts: NodeFacts, image: str) -> Body:
    """The body. `image`: an id, or a name where the id is not known. Whatever is in the spec gives one; Docker judges it."""
    service = filled_in(service, wanted.allocation)
    spec = service.container
    body: dict[str, object] = {
        "Image": image,
        "Env": [f"{name}={value}" for name, value in sorted(spec.environment.items())],
        "Labels": _labels(wanted.allocation, service, facts),
        "ExposedPorts": {port: {} for port in _exposed(service)},
        "Tty": spec.tty,
        "OpenStdin": spec.stdin_open,
        "User": spec.user,
        "WorkingDir": spec.working_dir,
        "Hostname": spec.hostname,
        "StopTimeout": math.ceil(_bounded(spec.stop_grace, 0.0, MOST_GRACE)),
        "HostConfig": _host(wanted.allocation, app, service, facts),
        "NetworkingConfig": {"EndpointsConfig": {} if spec.network_mode else {facts.network: {}}},
    }
    if spec.command is not None:
        body["Cmd"] = list(spec.command)
    if spec.entrypoint is not None:
        body["Entrypoint"] = list(spec.entrypoint) or [""]  # which is how Docker is told: none, and not the image's command either
    if spec.stop_signal:
        body["StopSignal"] = spec.stop_signal
    if spec.probe is not None:
        body["Healthcheck"] = _healthcheck(spec.probe)
    return body


def _labels(allocation: Allocation, service: ServiceSpec, facts: NodeFacts) -> dict[str, str]:
    """Ours count, whatever the spec says of them."""
    port = service.ports[0].target if service.ports else min(service.container.expose, default=0)
    own = {
        info.CLUSTER: facts.cluster,
        info.APP: allocation.app,
        info.SERVICE: f"{allocation.app}/{allocation.service}",
        info.ALLOCATION: allocation.id,
        info.REVISION: allocation.revision,
        info.GENERATION: str(allocation.generation),
        info.GRACE: f"{_bounded(service.container.stop_grace, 0.0, MOST_GRACE):.3f}",
        info.WEIGHT: str(service.weight),
        info.PRIORITY: str(service.priority),
    }
    if service.exclusive:
        own[info.EXCLUSIVE] = "1"
    theirs = {name: value for name, value in service.container.labels.items() if name != info.EXCLUSIVE}
    return {**({info.PORT: str(port)} if port else {}), **theirs, **own}


def _exposed(service: ServiceSpec) -> list[str]:
    spec = service.container
    exposed = {f"{port}/tcp" for port in spec.expose} | {f"{port}/udp" for port in spec.expose_udp}
    return sorted(exposed | {f"{port.target}/{port.protocol}" for port in service.ports})


def _host(allocation: Allocation, app: AppSpec, service: ServiceSpec, facts: NodeFacts) -> dict[str, object]:
    spec = service.container
    named = [volumes.of(mount, app, allocation, facts.cluster) for mount in spec.mounts if volumes.is_exact(mount)]
    files = [_file(file, file_path(facts, allocation.id, number)) for number, file in enumerate(spec.files)]
    gates = [_gate(allocation, facts)] if service.exclusive else []
    names = [_resolv_conf(allocation, facts)] if resolvconf.is_ours(spec, facts.dns) else []
    logging = spec.logging if spec.logging.driver or spec.logging.options else facts.logging
    host: dict[str, object] = {
        "NetworkMode": spec.network_mode or facts.network,
        "RestartPolicy": {"Name": "no"},  # restarting is the agent's job: two that do it do it twice
        "Mounts": named + files + gates + names,
        "Binds": [volumes.bind(mount) for mount in spec.mounts if volumes.is_bound(mount)],
        "Tmpfs": {mount.target: volumes.tmpfs(mount) for mount in spec.mounts if volumes.is_free(mount)},
        "Dns": _servers(spec, facts),
        "DnsSearch": list(spec.dns_search),
        "DnsOptions": list(spec.dns_options),
        "ExtraHosts": list(spec.extra_hosts),
        "GroupAdd": list(spec.group_add),
        "CapAdd": list(spec.cap_add),
        "CapDrop": _dropped(spec),
        "SecurityOpt": list(spec.security_opt),
        "Devices": [_device(device) for device in spec.devices],
        "Privileged": spec.privileged,
        "ReadonlyRootfs": spec.read_only,
        "NanoCpus": spec.limits.cpus * 1_000_000,
        "Memory": spec.limits.memory,
        "OomScoreAdj": spec.oom_score_adj,
        "Ulimits": [{"Name": name, "Soft": limit.soft, "Hard": limit.hard} for name, limit in sorted(spec.ulimits.items())],
        "Sysctls": dict(spec.sysctls),
        "IpcMode": spec.ipc,
        "PidMode": spec.pid,
        "ShmSize": spec.shm_size,
        "CgroupParent": facts.cgroup_parent,
        "LogConfig": {"Type": logging.driver, "Config": dict(logging.options)},
    }
    if spec.limits.pids:
        host["PidsLimit"] = spec.limits.pids
    if spec.init:
        host["Init"] = True  # not said is not False: Docker may have been told to give everybody one
    return host


def _servers(spec: ContainerSpec, facts: NodeFacts) -> list[str]:
    """For names. In its node's own network a container is none that the agent knows by its address: it asks whom the node asks, unless the
    service says whom (without any, Docker copies the node's resolv.conf)."""
    match spec.network_mode:
        case "none":
            return []
        case "host":
            return list(spec.dns)
        case "":
            return [*([facts.dns] if facts.dns else []), *spec.dns]


def _dropped(spec: ContainerSpec) -> list[str]:
    """With NET_RAW a container can send packets in another's name, and addresses are what identities rest on: only who asks gets it."""
    added = {capability.upper().removeprefix("CAP_") for capability in spec.cap_add}
    dropped = {capability.upper().removeprefix("CAP_") for capability in spec.cap_drop}
    wanted = spec.privileged or added & {"NET_RAW", "ALL"} or dropped & {"NET_RAW", "ALL"}
    return [*spec.cap_drop] if wanted else [*spec.cap_drop, "NET_RAW"]


def _device(text: str) -> dict[str, str]:
    """`PATH[:PATH IN THE CONTAINER[:PERMISSIONS]]`"""
    path, _, rest = text.partition(":")
    inside, _, permissions = rest.partition(":")
    return {"PathOnHost": path, "PathInContainer": inside or path, "CgroupPermissions": permissions or "rwm"}


def _file(file: Attachment, source: str) -> dict[str, object]:
    """What is not laid ready is not made up: Docker refuses to start the container."""
    return {"Type": "bind", "Source": source, "Target": file.target, "ReadOnly": True}


def _gate(allocation: Allocation, facts: NodeFacts) -> dict[str, object]:
    """Once the node's lease has ended it is not there, and Docker starts nothing any more, whenever it was asked to."""
    return {"Type": "bind", "Source": f"{facts.gates}/{gate_name(allocation.id)}", "Target": GATE, "ReadOnly": True}


def _resolv_conf(allocation: Allocation, facts: NodeFacts) -> dict[str, object]:
    """In place of Docker's, which has its own server asked before us. Read-only: it is in the node's memory."""
    return {"Type": "bind", "Source": resolvconf_path(facts, allocation.id), "Target": resolvconf.TARGET, "ReadOnly": True}


def _healthcheck(probe: Probe) -> dict[str, object]:
    if probe.kind != "docker":
        return {"Test": ["NONE"]}  # the agent asks instead
    check: dict[str, object] = {}  # what nobody has written is not said: then the image's own figure counts, if it has one
    if probe.test:
        check["Test"] = list(probe.test)
    if probe.interval != _USUAL.interval or "interval" in probe.written:
        check["Interval"] = _nanoseconds(probe.interval)
    if probe.timeout != _USUAL.timeout or "timeout" in probe.written:
        check["Timeout"] = _nanoseconds(probe.timeout)
    if probe.retries != _USUAL.retries or "retries" in probe.written:
        check["Retries"] = probe.retries
    if probe.start_period > 0:
        check["StartPeriod"] = _nanoseconds(probe.start_period)
    if probe.start_interval != _USUAL.start_interval or "start_interval" in probe.written:
        check["StartInterval"] = _nanoseconds(probe.start_interval)  # before API 1.44 it is not known, and left out of account
    return check


def _nanoseconds(seconds: float) -> int:
    return int(_bounded(seconds, _SHORTEST, _LONGEST) * 1e9)


def _bounded(number: float, least: float, most: float) -> float:
    return most if math.isnan(number) else min(max(number, least), most)
