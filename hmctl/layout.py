"""Where things lie on a node (design section 4). Everything that deploy puts there is named here, so that reset can remove all of it."""

from __future__ import annotations

UNIT = "hypermesh-agent.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
FENCE = "hypermesh-fence.service"  # ends exclusive containers with the node's lease, without the agent
FENCE_FILE = f"/etc/systemd/system/{FENCE}"
WRAPPER = "/usr/local/bin/hypermesh-agent"
SLICE = "hypermesh.slice"  # keeps the common cgroup of our containers where Docker uses systemd's driver
SLICE_FILE = f"/etc/systemd/system/{SLICE}"

ETC = "/etc/hypermesh"
CONFIG = f"{ETC}/agent.yaml"
PREVIOUS = f"{CONFIG}.previous"  # what the last change of it replaced
PACKAGES = f"{ETC}/packages"  # what deploy installed with the host's package manager, one a line
TRIED = f"{ETC}/packages.tried"  # what it could not install, and under which kernel
PKI = f"{ETC}/pki"
CA = f"{PKI}/ca.pem"
CERTIFICATE = f"{PKI}/node.pem"
KEY = f"{PKI}/node.key"

OPT = "/opt/hypermesh"
RELEASES = f"{OPT}/releases"
CURRENT = f"{OPT}/current"

STATE = "/var/lib/hypermesh"
JOURNAL = f"{STATE}/raft"
RUN = "/run/hypermesh"
STARTED = f"{RUN}/started"  # what the running agent was started with: checksums of its files, and its release
FENCING = f"{RUN}/fence"  # the node's lease, and the gates of exclusive containers
SOCKET = f"{RUN}/agent.sock"
PINS = "/sys/fs/bpf/hypermesh"  # our programs in the kernel live by these pins
LOCK = "/run/hypermesh-deploy.lock"  # held while an hmctl changes the host

# What an agent reads once, at its start: if one of these changed since, it must be restarted.
READ_AT_START = (CONFIG, CA, CERTIFICATE, UNIT_FILE)


def release(digest: str) -> str:
    return f"{RELEASES}/{digest}"
