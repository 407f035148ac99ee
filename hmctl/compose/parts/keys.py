"""Every key of the Compose Specification, and what becomes of it here: it is heeded, it does nothing, or it cannot be had.

By the kind of object that a key stands in (`service`, `service.build`). Whatever stands in an object that is ignored or not supported as
a whole is not listed: nobody reads it. Keys that begin with `x-` are allowed everywhere; of them only `x-hypermesh` means something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Keys:
    """Of one kind of object. `ignored`: why they do nothing. `unsupported`: what to do instead."""

    supported: frozenset[str]
    ignored: Mapping[str, str] = field(default_factory=dict)
    unsupported: Mapping[str, str] = field(default_factory=dict)

    @property
    def known(self) -> list[str]:
        return sorted({*self.supported, *self.ignored, *self.unsupported})


def _keys(supported: str, ignored: Mapping[str, str] | None = None, unsupported: Mapping[str, str] | None = None) -> Keys:
    return Keys(frozenset(supported.split()), ignored or {}, unsupported or {})


_WINDOWS = "it is for Windows"
_BUILD = "the image is built with docker build on this machine"
_ONE_NETWORK = "a container here has one network, that of the cluster"
_ADDRESSES = "addresses are the cluster's to give: use the name of the service"
_LABELS = "only containers, services and volumes have labels here"
_SHARES = "deploy.resources.limits.cpus says how much of the processors it gets, reservations.cpus how much it surely gets"
_GPU = "choose the nodes with deploy.placement.constraints, and give the container its devices"
_HOOKS = "let the image's entrypoint do it, or a service of its own that others depend on (service_completed_successfully)"
_UPDATE = "parallelism delay failure_action monitor max_failure_ratio order"

SERVICE = _keys(
    "build cap_add cap_drop command configs container_name cpus depends_on deploy devices dns dns_opt dns_search entrypoint env_file"
    " environment expose extends extra_hosts group_add healthcheck hostname image init ipc label_file labels links logging mem_limit"
    " mem_reservation network_mode networks oom_score_adj pid pids_limit platform ports privileged profiles pull_policy read_only restart"
    " scale secrets security_opt shm_size stdin_open stop_grace_period stop_signal sysctls tmpfs tty ulimits user volumes working_dir"
    " x-hypermesh",
    {
        "annotations": "nothing here reads them; labels are kept",
        "attach": "output is asked for: hmctl app logs",
        "cpu_count": _WINDOWS,
        "cpu_percent": _WINDOWS,
        "develop": "it is for work on one's own machine",
        "isolation": _WINDOWS,
        "pull_refresh_after": "images are looked up when an app is deployed, and stay the same until then",
    },
    {
        "blkio_config": "leave it out; a container that needs a disk for itself can have a node for itself: deploy.placement.constraints",
        "cgroup": "leave it out: the namespace is the container's own with version 2 cgroups, and the node's with version 1",
        "cgroup_parent": "leave it out: containers of the cluster share one that is HyperMesh's",
        "cpu_period": "cpus: cpu_quota divided by cpu_period",
        "cpu_quota": "cpus: cpu_quota divided by cpu_period",
        "cpu_rt_period": _SHARES,
        "cpu_rt_runtime": _SHARES,
        "cpu_shares": _SHARES,
        "cpuset": _SHARES,
        "credential_spec": "it is for Windows: leave it out",
        "device_cgroup_rules": "name the devices under devices:",
        "domainname": "hostname: with the domain, NAME.DOMAIN",
        "external_links": "put both services into one app; they reach each other by name",
        "gpus": _GPU,
        "mac_address": "leave it out: " + _ADDRESSES,
        "mem_swappiness": "leave it out, and set vm.swappiness on the nodes",
        "memswap_limit": "leave it out: a container may swap as much as it may have memory",
        "models": "run the model as a service of its own, and give its address in environment:",
        "oom_kill_disable": "oom_score_adj: -1000 to 1000",
        "post_start": _HOOKS,
        "pre_start": _HOOKS,
        "pre_stop": "let the program do it when it gets its stop_signal, within stop_grace_period",
        "provider": "leave the service out, and give what it would provide in environment:",
        "runtime": "make it the default runtime of the nodes' Docker",
        "storage_opt": "leave it out; a volume on a file system with a quota has a limit",
        "use_api_socket": "mount /var/run/docker.sock under volumes:",
        "userns_mode": "leave it out, and configure the nodes' Docker (userns-remap)",
        "uts": "leave it out; hostname: gives the container a name",
        "volumes_from": "name the volumes under volumes: in both services",
    },
)

OBJECTS: Mapping[str, Keys] = {
    "": _keys(
        "name services networks volumes secrets configs include",
        {"version": "it is obsolete: leave it out"},
        {"models": "run the model as a service of its own, and give its address in environment:"},
    ),
    "service": SERVICE,
    "service.build": _keys(
        "context dockerfile dockerfile_inline args target labels cache_from network extra_hosts additional_contexts shm_size no_cache pull"
        " platforms",
        dict.fromkeys(("cache_to", "isolation", "provenance", "sbom", "tags"), _BUILD + ", and goes to the nodes from there"),
        {
            **dict.fromkeys(("ssh", "secrets"), "build the image yourself with docker build, and name it under image:"),
            **dict.fromkeys(
                ("entitlements", "privileged", "ulimits"), "build the image yourself with docker build, and name it under image:"
            ),
        },
    ),
    "service.depends_on": _keys("condition restart required"),
    "service.devices": _keys("source target permissions"),
    "service.deploy": _keys("mode endpoint_mode replicas labels rollback_config update_config resources restart_policy placement"),
    "service.deploy.rollback_config": _keys(_UPDATE),
    "service.deploy.update_config": _keys(_UPDATE),
    "service.deploy.resources": _keys("limits reservations"),
    "service.deploy.resources.limits": _keys("cpus memory pids"),
    "service.deploy.resources.reservations": _keys(
        "cpus memory", None, {"devices": _GPU, "generic_resources": "choose the nodes by their labels: deploy.placement.constraints"}
    ),
    "service.deploy.restart_policy": _keys("condition delay max_attempts window"),
    "service.deploy.placement": _keys("constraints preferences max_replicas_per_node"),
    "service.deploy.placement.preferences": _keys("spread"),
    "service.healthcheck": _keys("disable interval retries test timeout start_period start_interval"),
    "service.logging": _keys("driver options"),
    "service.networks": _keys(
        "aliases",
        dict.fromkeys(("driver_opts", "gw_priority", "interface_name", "priority"), _ONE_NETWORK),
        dict.fromkeys(("ipv4_address", "ipv6_address", "link_local_ips", "mac_address"), "leave it out: " + _ADDRESSES),
    ),
    "service.ports": _keys(
        "mode host_ip target published protocol",
        {
            "name": "nobody here asks for a port by its name",
            "app_protocol": "connections are passed on as they come, whatever they carry",
        },
    ),
    "service.secrets": _keys("source target uid gid mode"),
    "service.configs": _keys("source target uid gid mode"),
    "service.ulimits": _keys("soft hard"),
    "service.volumes": _keys(
        "type source target read_only bind volume tmpfs",
        {"consistency": "it is for Docker on a Mac"},
        {"image": "copy what is needed into the service's own image"},
    ),
    "service.volumes.bind": _keys(
        "propagation create_host_path",
        {"selinux": "files keep the labels that they have on the node"},
        {"recursive": "leave it out: what is mounted beneath the path comes along"},
    ),
    "service.volumes.volume": _keys(
        "nocopy", {"labels": "give the volume its labels under the file's own volumes:"}, {"subpath": "a volume of its own for that part"}
    ),
    "service.volumes.tmpfs": _keys("size mode"),
    "service.x-hypermesh": _keys("exclusive weight priority check"),
    "service.x-hypermesh.check": _keys("type port path interval timeout retries start_period start_interval"),
    "network": _keys(  # some do nothing but for values that are not supported: parts/network.py
        "name external driver driver_opts internal enable_ipv4",
        {
            "attachable": _ONE_NETWORK,
            **dict.fromkeys(("enable_ipv6", "ipam"), "the cluster's network has the addresses that settings.network gives it"),
            "labels": _LABELS,
        },
    ),
    "volume": _keys("name external driver driver_opts labels"),
    "secret": _keys(
        "name external file environment",
        {"labels": _LABELS},
        dict.fromkeys(
            ("driver", "driver_opts", "template_driver"), "give the content as it shall be: file:, environment:, or hmctl secret set"
        ),
    ),
    "config": _keys(
        "name external file environment content",
        {"labels": _LABELS},
        {"template_driver": "give the content as it shall be; content: is interpolated"},
    ),
    "external": _keys("name"),
}
