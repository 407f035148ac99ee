"""What Docker is asked to create: every field of a spec, and any spec."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from docker_model import CLUSTER, IMAGE, NODE, allocation, wanted
from hypothesis import given
from hypothesis import strategies as st

from hmcore.apps.spec import (
    AppSpec,
    Attachment,
    ContainerSpec,
    Logging,
    Mount,
    Port,
    Probe,
    Resources,
    ServiceSpec,
    Ulimit,
    Volume,
)
from node_agent.container.creation import NodeFacts, Wanted, container_name, creation, file_path, needed_volumes, second_name

WEB = "shop/web.1.7"
NAMES = {"Type": "bind", "Source": "/run/hypermesh/resolv/shop@web.1.7", "Target": "/etc/resolv.conf", "ReadOnly": True}


def body_of(service: ServiceSpec | None = None, *, node: NodeFacts = NODE, app: AppSpec | None = None, **container: Any) -> dict[str, Any]:
    service = service or ServiceSpec(container=ContainerSpec(image="web:1", **container))
    app = app or AppSpec(services={"web": service})
    made = creation(Wanted(allocation(WEB), app), app, service, node, IMAGE)
    json.dumps(made, allow_nan=False)
    return dict(made)


def host_of(**container: Any) -> dict[str, Any]:
    host = body_of(**container)["HostConfig"]
    assert isinstance(host, dict)
    return host


def test_a_spec_that_says_nothing_leaves_everything_to_image_and_docker() -> None:
    body = body_of()
    host = body.pop("HostConfig")
    labels = body.pop("Labels")
    assert body == {
        "Image": IMAGE,
        "Env": [],
        "ExposedPorts": {},
        "Tty": False,
        "OpenStdin": False,
        "User": "",
        "WorkingDir": "",
        "Hostname": "",
        "StopTimeout": 10,
        "NetworkingConfig": {"EndpointsConfig": {"hypermesh": {}}},
    }
    assert labels == {
        "hypermesh.cluster": CLUSTER,
        "hypermesh.app": "shop",
        "hypermesh.service": "shop/web",
        "hypermesh.allocation": WEB,
        "hypermesh.revision": "r1",
        "hypermesh.generation": "1",
        "hypermesh.stop-grace": "10.000",
        "hypermesh.weight": "100",
        "hypermesh.priority": "0",
    }
    assert {name: value for name, value in host.items() if value} == {
        "NetworkMode": "hypermesh",
        "RestartPolicy": {"Name": "no"},
        "Mounts": [NAMES],
        "Dns": ["10.1.0.1"],
        "CapDrop": ["NET_RAW"],
        "CgroupParent": "/hypermesh",
        "LogConfig": {"Type": "", "Config": {}},
    }


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"command": ("a", "b")}, "Cmd", ["a", "b"]),
        ({"command": ()}, "Cmd", []),
        ({"entrypoint": ("/e",)}, "Entrypoint", ["/e"]),
        ({"entrypoint": ()}, "Entrypoint", [""]),
        ({"environment": {"B": "x=y", "A": ""}}, "Env", ["A=", "B=x=y"]),
        ({"user": "1000:1000"}, "User", "1000:1000"),
        ({"working_dir": "/srv"}, "WorkingDir", "/srv"),
        ({"hostname": "web"}, "Hostname", "web"),
        ({"stop_signal": "SIGQUIT"}, "StopSignal", "SIGQUIT"),
        ({"stop_grace": 2.5}, "StopTimeout", 3),
        ({"stop_grace": float("nan")}, "StopTimeout", 86400),
        ({"tty": True}, "Tty", True),
        ({"stdin_open": True}, "OpenStdin", True),
        ({"expose": (80, 90)}, "ExposedPorts", {"80/tcp": {}, "90/tcp": {}}),
        ({"network_mode": "host"}, "NetworkingConfig", {"EndpointsConfig": {}}),
        (
            {"networks": {"back": ("db",)}},
            "NetworkingConfig",
            {"EndpointsConfig": {"hypermesh": {}}},
        ),  # names are our DNS's
    ],
)
def test_the_containers_own_fields(given: dict[str, Any], field: str, value: object) -> None:
    assert body_of(**given)[field] == value


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"group_add": ("audio",)}, "GroupAdd", ["audio"]),
        ({"network_mode": "host"}, "NetworkMode", "host"),
        ({"network_mode": "none"}, "NetworkMode", "none"),
        ({"network_mode": "none", "dns": ("9.9.9.9",)}, "Dns", []),
        ({"network_mode": "host"}, "Dns", []),  # the node's own
        ({"network_mode": "host", "dns": ("9.9.9.9",)}, "Dns", ["9.9.9.9"]),
        ({"extra_hosts": ("db:10.0.0.1", "me:host-gateway")}, "ExtraHosts", ["db:10.0.0.1", "me:host-gateway"]),
        ({"dns": ("9.9.9.9",)}, "Dns", ["10.1.0.1", "9.9.9.9"]),
        ({"dns_search": ("corp",)}, "DnsSearch", ["corp"]),
        ({"dns_options": ("ndots:1",)}, "DnsOptions", ["ndots:1"]),
        ({"limits": Resources(cpus=1500)}, "NanoCpus", 1_500_000_000),
        ({"limits": Resources(memory=64 << 20)}, "Memory", 64 << 20),
        ({"limits": Resources(pids=50)}, "PidsLimit", 50),
        ({"cap_add": ("NET_ADMIN",)}, "CapAdd", ["NET_ADMIN"]),
        ({"security_opt": ("no-new-privileges",)}, "SecurityOpt", ["no-new-privileges"]),
        ({"devices": ("/dev/fuse",)}, "Devices", [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"}]),
        ({"devices": ("/dev/a:/dev/b:r",)}, "Devices", [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}]),
        ({"privileged": True}, "Privileged", True),
        ({"read_only": True}, "ReadonlyRootfs", True),
        ({"init": True}, "Init", True),
        ({"ipc": "host"}, "IpcMode", "host"),
        ({"pid": "host"}, "PidMode", "host"),
        ({"shm_size": 128}, "ShmSize", 128),
        ({"oom_score_adj": -500}, "OomScoreAdj", -500),
        ({"ulimits": {"nofile": Ulimit(soft=1, hard=2)}}, "Ulimits", [{"Name": "nofile", "Soft": 1, "Hard": 2}]),
        ({"sysctls": {"net.core.somaxconn": "1024"}}, "Sysctls", {"net.core.somaxconn": "1024"}),
        ({"logging": Logging(driver="local", options={"max-size": "1m"})}, "LogConfig", {"Type": "local", "Config": {"max-size": "1m"}}),
    ],
)
def test_fields_of_its_host(given: dict[str, Any], field: str, value: object) -> None:
    assert host_of(**given)[field] == value


def test_what_the_node_says_of_logging_is_for_those_who_say_nothing() -> None:
    node = NodeFacts(cluster=CLUSTER, logging=Logging(driver="local"))
    assert body_of(node=node)["HostConfig"]["LogConfig"] == {"Type": "local", "Config": {}}
    own = ServiceSpec(container=ContainerSpec(image="x", logging=Logging(options={"max-file": "2"})))
    assert body_of(own, node=node)["HostConfig"]["LogConfig"] == {"Type": "", "Config": {"max-file": "2"}}


@pytest.mark.parametrize(
    ("given", "dropped"),
    [
        ({}, ["NET_RAW"]),
        ({"cap_drop": ("MKNOD",)}, ["MKNOD", "NET_RAW"]),
        ({"cap_drop": ("ALL",)}, ["ALL"]),
        ({"cap_drop": ("cap_net_raw",)}, ["cap_net_raw"]),
        ({"cap_add": ("NET_RAW",)}, []),
        ({"cap_add": ("CAP_NET_RAW",), "cap_drop": ("MKNOD",)}, ["MKNOD"]),
        ({"cap_add": ("net_raw",)}, []),
        ({"cap_add": ("ALL",)}, []),
        ({"cap_add": ("NET_ADMIN",)}, ["NET_RAW"]),
        ({"privileged": True}, []),
    ],
)
def test_net_raw_is_for_those_who_ask_for_it(given: dict[str, Any], dropped: list[str]) -> None:
    assert host_of(**given)["CapDrop"] == dropped


@pytest.mark.parametrize(
    ("probe", "check"),
    [
        (Probe(), {}),  # all of it may be the image's
        (Probe(interval=5.0), {"Interval": 5 * 10**9}),
        (Probe(start_interval=1.0), {"StartInterval": 10**9}),
        (
            Probe(written=("interval", "timeout", "retries", "start_interval")),  # then they count, and not the image's
            {"Interval": 30 * 10**9, "Timeout": 30 * 10**9, "Retries": 3, "StartInterval": 5 * 10**9},
        ),
        (Probe(written=("interval",)), {"Interval": 30 * 10**9}),
        (
            Probe(test=("CMD", "true"), interval=1.5, timeout=0, retries=5, start_period=10),
            {
                "Test": ["CMD", "true"],
                "Interval": 1_500_000_000,
                "Timeout": 1_000_000,
                "Retries": 5,
                "StartPeriod": 10 * 10**9,
            },
        ),
        (Probe(test=("NONE",)), {"Test": ["NONE"]}),
        (Probe(kind="tcp", port=80), {"Test": ["NONE"]}),
        (Probe(kind="http", port=80, path="/"), {"Test": ["NONE"]}),
    ],
)
def test_health_checks(probe: Probe, check: dict[str, object]) -> None:
    assert body_of(probe=probe)["Healthcheck"] == check


def test_templates_are_filled_in_where_swarm_does_it() -> None:
    spec = ContainerSpec(
        image="web:1",
        hostname="{{.Node.Hostname}}-{{.Task.Slot}}",
        environment={"A": "{{.Service.Name}} {{.Service.Labels.team}}", "{{.Node.ID}}": "{{ .Name }}"},
        command=("{{.Task.Slot}}",),
        labels={"a": "{{.Task.Slot}}"},
        mounts=(Mount(kind="bind", source="/srv/{{.Task.Name}}", target="/{{.Task.Slot}}"),),
    )
    body = body_of(ServiceSpec(container=spec, labels={"team": "blue"}))
    assert body["Hostname"] == "node1-1"
    assert body["Env"] == ["A=shop_web blue", "{{.Node.ID}}={{ .Name }}"]
    assert body["HostConfig"]["Binds"] == ["/srv/shop_web.1.7:/{{.Task.Slot}}:rw"]
    assert body["Cmd"] == ["{{.Task.Slot}}"]
    assert body["Labels"]["a"] == "{{.Task.Slot}}"
    many = ServiceSpec(container=ContainerSpec(image="web:1", hostname="{{.Task.Slot}}"), mode="global")
    assert body_of(many)["Hostname"] == "node1"


def test_mounts() -> None:
    mounts = (
        Mount(kind="volume", target="/data", source="data", no_copy=True),
        Mount(kind="volume", target="/shared", source="shared", read_only=True),
        Mount(kind="volume", target="/scratch"),
        Mount(kind="bind", target="/etc/x", source="/srv/x", read_only=True, propagation="rslave"),
        Mount(kind="bind", target="/etc/y", source="/srv/y", create_source=False),
        Mount(kind="bind", target="/etc/z", source="/srv/a:b", propagation="rprivate"),
        Mount(kind="tmpfs", target="/tmp", size=1 << 20, mode=0o1777),
        Mount(kind="tmpfs", target="/run"),
    )
    volumes = {
        "data": Volume(name="shop_data", driver="nfs", options={"o": "rw"}, labels={"tier": "1"}),
        "shared": Volume(name="shared", external=True, driver="x"),
    }
    service = ServiceSpec(container=ContainerSpec(image="x", mounts=mounts))
    app = AppSpec(services={"web": service}, volumes=volumes)
    host = body_of(service, app=app)["HostConfig"]
    assert host["Binds"] == ["/srv/x:/etc/x:ro,rslave"]
    assert host["Mounts"] == [
        {
            "Type": "volume",
            "Source": "shop_data",
            "Target": "/data",
            "ReadOnly": False,
            "VolumeOptions": {
                "NoCopy": True,
                "Labels": {"tier": "1", "hypermesh.cluster": CLUSTER, "hypermesh.app": "shop"},
                "DriverConfig": {"Name": "nfs", "Options": {"o": "rw"}},
            },
        },
        {"Type": "volume", "Source": "shared", "Target": "/shared", "ReadOnly": True, "VolumeOptions": {"NoCopy": False}},
        {"Type": "volume", "Source": "", "Target": "/scratch", "ReadOnly": False, "VolumeOptions": {"NoCopy": False}},
        {"Type": "bind", "Source": "/srv/y", "Target": "/etc/y", "ReadOnly": False, "BindOptions": {"CreateMountpoint": False}},
        {
            "Type": "bind",
            "Source": "/srv/a:b",
            "Target": "/etc/z",
            "ReadOnly": False,
            "BindOptions": {"CreateMountpoint": True, "Propagation": "rprivate"},
        },
        {"Type": "tmpfs", "Target": "/tmp", "ReadOnly": False, "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777}},
        {"Type": "tmpfs", "Target": "/run", "ReadOnly": False, "TmpfsOptions": {}},
        NAMES,
    ]
    assert needed_volumes(app, service) == ("shared",)


def test_a_tmpfs_with_options_of_its_own() -> None:
    mounts = (
        Mount(kind="tmpfs", target="/run", size=1 << 20, mode=0o755, options=("uid=1000", "exec")),
        Mount(kind="tmpfs", target="/tmp", read_only=True, options=("noatime",)),
        Mount(kind="tmpfs", target="/var/tmp", mode=0o700),
    )
    host = host_of(mounts=mounts)
    assert host["Tmpfs"] == {"/run": "rw,size=1048576,mode=755,uid=1000,exec", "/tmp": "ro,noatime"}
    assert [mount["Target"] for mount in host["Mounts"]] == ["/var/tmp", "/etc/resolv.conf"]


def test_secrets_and_configs_are_files_that_are_laid_ready_for_one_allocation() -> None:
    key = Attachment(kind="secret", source="key", target="/run/secrets/key")
    files = (key, Attachment(kind="config", source="conf", target="/etc/conf"))
    assert host_of(files=files)["Mounts"] == [
        {"Type": "bind", "Source": "/run/hypermesh/files/shop@web.1.7/0", "Target": "/run/secrets/key", "ReadOnly": True},
        {"Type": "bind", "Source": "/run/hypermesh/files/shop@web.1.7/1", "Target": "/etc/conf", "ReadOnly": True},
        NAMES,
    ]
    assert file_path(NODE, "a/b.1.1", 0) != file_path(NODE, "a/b.1.10", 0)


def test_names_are_asked_for_as_we_say_unless_the_service_or_its_network_says_otherwise() -> None:
    own = Mount(kind="bind", source="/srv/resolv.conf", target="/etc/resolv.conf", read_only=True)
    assert NAMES in host_of(read_only=True, user="1000")["Mounts"]
    bound = host_of(mounts=(own,))
    assert (bound["Mounts"], bound["Binds"]) == ([], ["/srv/resolv.conf:/etc/resolv.conf:ro"]), "two mounts of one place Docker refuses"
    assert host_of(network_mode="host")["Mounts"] == host_of(network_mode="none")["Mounts"] == []
    assert body_of(node=NodeFacts(cluster=CLUSTER, network="bridge"))["HostConfig"]["Mounts"] == [], "where the network is not ours"


def test_labels_of_ours_are_ours_to_say() -> None:
    stolen = {"hypermesh.cluster": "x", "hypermesh.allocation": "x", "hypermesh.revision": "x", "hypermesh.stop-grace": "x", "tier": "1"}
    container = ContainerSpec(image="x", labels=stolen, expose=(90,))
    service = ServiceSpec(container=container, ports=(Port(target=8080, published=80),), weight=5, priority=2)
    labels = body_of(service)["Labels"]
    assert labels == body_of()["Labels"] | {"tier": "1", "hypermesh.port": "8080", "hypermesh.weight": "5", "hypermesh.priority": "2"}
    assert body_of(expose=(91, 90))["Labels"]["hypermesh.port"] == "90"
    assert body_of(expose=(90,), labels={"hypermesh.port": "70"})["Labels"]["hypermesh.port"] == "70"


def test_docker_publishes_nothing() -> None:
    service = ServiceSpec(container=ContainerSpec(image="x"), ports=(Port(target=53, published=53, protocol="udp", mode="host"),))
    body = body_of(service)
    assert body["ExposedPorts"] == {"53/udp": {}}
    assert not {"PortBindings", "PublishAllPorts"} & set(body["HostConfig"])


def test_names() -> None:
    replicated = ServiceSpec(container=ContainerSpec(image="x"))
    everywhere = ServiceSpec(container=ContainerSpec(image="x"), mode="global")
    assert container_name(allocation(WEB), replicated) == "shop-web-1-7"
    assert container_name(allocation("shop/web.0.7"), everywhere) == "shop-web-7"
    one, other = allocation("a-b/c.1.1"), allocation("a/b-c.1.1")
    assert container_name(one, replicated) == container_name(other, replicated)
    assert second_name(one, replicated) != second_name(other, replicated)


text = st.text(max_size=6)
numbers = st.integers(-(2**40), 2**40) | st.integers(0, 5)
seconds = st.floats() | st.floats(-1, 100)


def struct(cls: type[Any], /, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    assert set(fields) <= set(cls.__struct_fields__)
    return st.builds(cls, **fields)


mounts = struct(
    Mount,
    kind=st.sampled_from(["volume", "bind", "tmpfs"]),
    target=text,
    source=text | st.just("data"),
    read_only=st.booleans(),
    size=numbers,
    mode=numbers,
    no_copy=st.booleans(),
    propagation=text,
    create_source=st.booleans(),
    options=st.lists(text, max_size=2).map(tuple),
)
probes = struct(
    Probe,
    test=st.lists(text, max_size=2).map(tuple),
    kind=st.sampled_from(["docker", "http", "tcp"]),
    port=numbers,
    path=text,
    interval=seconds,
    timeout=seconds,
    retries=numbers,
    start_period=seconds,
    start_interval=seconds,
)
texts = st.lists(text, max_size=2).map(tuple)
pairs = st.dictionaries(text, text, max_size=2)
specs = struct(
    ContainerSpec,
    image=text,
    command=st.none() | texts,
    entrypoint=st.none() | texts,
    environment=pairs,
    labels=pairs,
    stop_grace=seconds,
    stop_signal=text,
    probe=st.none() | probes,
    mounts=st.lists(mounts, max_size=3).map(tuple),
    files=st.lists(struct(Attachment, kind=st.just("secret"), source=text, target=text), max_size=2).map(tuple),
    expose=st.lists(numbers, max_size=2).map(tuple),
    network_mode=st.sampled_from(["", "host", "none"]),
    cap_add=texts,
    cap_drop=texts,
    devices=texts,
    limits=struct(Resources, cpus=numbers, memory=numbers, pids=numbers),
    sysctls=pairs,
)


@given(specs, st.text(max_size=20), numbers)
def test_any_spec_gives_a_body_that_can_be_sent_and_is_ours(spec: ContainerSpec, id: str, weight: int) -> None:
    service = ServiceSpec(container=spec, weight=weight)
    app = AppSpec(services={"web": service}, volumes={"data": Volume(name="d", external=True)})
    made = msgspec.structs.replace(allocation(WEB), id=id)
    body = creation(Wanted(made, app), app, service, NODE, IMAGE)
    json.dumps(body, allow_nan=False)
    labels, host = body["Labels"], body["HostConfig"]
    assert isinstance(labels, dict)
    assert isinstance(host, dict)
    assert labels["hypermesh.cluster"] == CLUSTER
    assert host["RestartPolicy"] == {"Name": "no"}
    assert container_name(made, service)[0].isalnum()


def test_wanted_has_its_service() -> None:
    assert wanted(WEB).service is not None
    assert Wanted(allocation(WEB), None).service is None
    assert Wanted(allocation(WEB), AppSpec(services={})).service is None


def test_what_is_exclusive_mounts_its_gate_and_says_so_and_nobody_else_can() -> None:
    spoof = {"labels": {"hypermesh.exclusive": "1"}}
    for service, exclusive in (
        (ServiceSpec(container=ContainerSpec(image="db:1", **spoof), exclusive=True), True),
        (ServiceSpec(container=ContainerSpec(image="db:1", **spoof)), False),
    ):
        body = body_of(service)
        gate = {"Type": "bind", "Source": f"{NODE.gates}/shop@web.1.7", "Target": "/.hypermesh-exclusive", "ReadOnly": True}
        assert (body["Labels"].get("hypermesh.exclusive") == "1", gate in body["HostConfig"]["Mounts"]) == (exclusive, exclusive)
