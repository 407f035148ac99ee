"""One service of a compose file, all its parts together. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from hmcore.apps.spec import Attachment, ContainerSpec, Dependency, Mount, Resources, ServiceSpec
from hmctl.compose.parts import deployment, health, images, network, runtime
from hmctl.compose.parts.files import files_of
from hmctl.compose.parts.images import Build, PullPolicy
from hmctl.compose.parts.machine import Machine
from hmctl.compose.parts.mounts import Ground, mounts_of, same_targets, tmpfs_of
from hmctl.compose.parts.names import GROUP, HOST, OPTION, PATH, SIGNAL, USER, VARIABLE
from hmctl.compose.parts.part import Fields, Part
from hmctl.compose.parts.ports import Ports, exposed, in_own_network, ports_of
from hmctl.compose.parts.templating import checked, hostname_of

MOST_WEIGHT = 1_000_000
MOST_PRIORITY = 1_000_000


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a service of `app` may name, as the rest of the file has it. `completed`: services that others wait for to end."""

    app: str
    machine: Machine
    volumes: Collection[str]
    networks: Collection[str]
    secrets: Mapping[str, object]
    configs: Mapping[str, object]
    depends_on: Mapping[str, Mapping[str, Dependency]]
    completed: Collection[str]


@dataclass(frozen=True, slots=True)
class Service:
    """`ports`: with where they were written, for what concerns several services."""

    spec: ServiceSpec
    ports: Ports
    build: Build | None = None
    pull: PullPolicy | None = None


def service_of(name: str, service: Fields, around: Surroundings) -> Service:
    deploy = service["deploy"].of("service.deploy")
    ours = service["x-hypermesh"].of("service.x-hypermesh")
    mode = deployment.mode_of(deploy)
    deployment.check_endpoint(deploy["endpoint_mode"])
    limits, reservations = deployment.resources_of(service, deploy)
    network_mode = network.mode_of(service)
    ports = ports_of(service["ports"])
    container = _container(name, service, ours["check"], around, ports, network_mode, limits)
    spec = ServiceSpec(
        container=container,
        mode=mode,
        replicas=deployment.replicas_of(service, deploy, mode),
        ports=in_own_network(network_mode, ports),
        placement=deployment.placement_of(deploy["placement"], service["platform"]),
        reservations=reservations,
        restart=deployment.restart_of(service, deploy, completes=name in around.completed),
        update=deployment.update_of(deploy["update_config"], "update_config"),
        rollback=deployment.update_of(deploy["rollback_config"], "rollback_config"),
        depends_on=dict(around.depends_on.get(name, {})),
        labels=runtime.labels(deploy["labels"]),
        exclusive=ours["exclusive"].boolean(),
        weight=ours["weight"].whole(0, MOST_WEIGHT, 100),
        priority=ours["priority"].whole(0, MOST_PRIORITY, 0),
    )
    _check(service, deploy, spec)
    return Service(
        spec,
        ports,
        images.build_of(service["build"], container.image, around.machine.folder),
        images.pull_policy(service["pull_policy"], built=bool(service.given("build"))),
    )


def _container(
    name: str, service: Fields, check: Part, around: Surroundings, ports: Ports, network_mode: network.Mode, limits: Resources
) -> ContainerSpec:
    mounts, files = _attached(service, around)
    expose = exposed(service["expose"])
    return ContainerSpec(
        image=images.image_of(service, around.app, name),
        command=runtime.command(service["command"]),
        entrypoint=runtime.command(service["entrypoint"]),
        environment=environment(service["environment"]),
        user=service["user"].scalar(USER),
        group_add=service["group_add"].strings(GROUP),
        working_dir=service["working_dir"].text(PATH),
        hostname=hostname_of(service["hostname"]),
        labels=runtime.labels(service["labels"]),
        stop_signal=service["stop_signal"].scalar(SIGNAL),
        stop_grace=service["stop_grace_period"].duration(10.0),
        probe=health.probe_of(service, check, ports),
        mounts=mounts,
        files=files,
        expose=expose.tcp,
        expose_udp=expose.udp,
        networks=network.networks_of(service, network_mode, around.networks, name),
        network_mode=network_mode,
        extra_hosts=network.extra_hosts(service["extra_hosts"]),
        dns=network.addresses(service["dns"]),
        dns_search=service["dns_search"].one_or_more(HOST),
        dns_options=service["dns_opt"].strings(OPTION),
        limits=limits,
        cap_add=runtime.capabilities(service["cap_add"]),
        cap_drop=runtime.capabilities(service["cap_drop"]),
        security_opt=runtime.security_options(service["security_opt"]),
        devices=runtime.devices(service["devices"]),
        privileged=service["privileged"].boolean(),
        read_only=service["read_only"].boolean(),
        init=service["init"].boolean(),
        tty=service["tty"].boolean(),
        stdin_open=service["stdin_open"].boolean(),
        ipc=runtime.namespace(service["ipc"], ("host", "none", "private", "shareable")),
        pid=runtime.namespace(service["pid"], ("host",)),
        shm_size=service["shm_size"].size(),
        oom_score_adj=service["oom_score_adj"].whole(-1000, 1000),
        ulimits=runtime.ulimits(service["ulimits"]),
        sysctls=runtime.sysctls(service["sysctls"]),
        logging=runtime.logging(service["logging"]),
    )


def environment(part: Part) -> dict[str, str]:
    """What is only named has no value in the operator's environment either (load.py would have put it here): the container has none."""
    found = {name: value for name, value in part.pairs(VARIABLE).items() if value is not None}
    for name, value in found.items():
        checked(part.at(name, value) if isinstance(part.value, Mapping) else part, value)
    return found


def _attached(service: Fields, around: Surroundings) -> tuple[tuple[Mount, ...], tuple[Attachment, ...]]:
    ground = Ground(around.volumes, around.machine)
    mounts = mounts_of(service["volumes"], ground)
    mounts.update({mount: entry for mount, entry in tmpfs_of(service["tmpfs"]).items() if mount not in mounts})
    files = files_of(service["secrets"], "secret", around.secrets) | files_of(service["configs"], "config", around.configs)
    places: Iterator[tuple[str, Part]] = ((each.target, entry) for found in (mounts, files) for each, entry in found.items())
    same_targets(places)
    return tuple(mounts), tuple(files)


def _check(service: Fields, deploy: Fields, spec: ServiceSpec) -> None:
    """What is fine by itself and does not go together, or should not go unnoticed."""
    if spec.container.privileged:
        service["privileged"].warn("whoever is in this container may do anything on its node", "cap_add: and devices: give it less")
    if service.given("container_name") and (spec.mode == "global" or spec.replicas > 1):
        service["container_name"].warn("is another name of the service, not of a container: it has several", "leave it out, or one replica")
    if spec.container.network_mode == "host" and (net := [name for name in spec.container.sysctls if name.startswith("net")]):
        service["sysctls"].wrong(f"{net[0]} is the node's own with network_mode: host", "set it on the nodes")
    if spec.exclusive and (spec.mode == "global" or spec.replicas > 1):
        part = deploy["mode"] if spec.mode == "global" else deploy["replicas"] if deploy.given("replicas") else service["scale"]
        part.wrong("the service is exclusive: never two of it run at a time", "one replica; a service of its own for each that shall run")
    for key in ("update_config", "rollback_config"):
        update = spec.update if key == "update_config" else spec.rollback
        if spec.exclusive and update.order == "start-first":
            deploy[key].wrong("start-first has two of it at a time, and the service is exclusive", "order: stop-first")
