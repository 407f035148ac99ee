"""What pyinfra does of the same work: push the release, unpack it, write a unit, start it. Run by deploying.py, never imported by us."""

from pyinfra import host
from pyinfra.operations import files, server, systemd

files.directory(name="Directory", path="/opt/peer/release")
pushed = files.put(name="Upload release", src=host.data.archive, dest="/opt/peer/release.tar.gz", mode="600")
server.shell(
    name="Unpack release",
    commands=["tar -xzf /opt/peer/release.tar.gz -C /opt/peer/release"],
    _if=pushed.did_change,
)
unit = files.put(name="Write unit", src=host.data.unit, dest="/etc/systemd/system/peer.service", mode="644")
systemd.service(name="Start", service="peer.service", running=True, enabled=True, daemon_reload=True)
