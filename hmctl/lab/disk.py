"""A host's disk: an overlay over the base image. What makes a host itself (name, identity, keys) is written into the upper layer,
before the host boots; the overlay is mounted by the host's own launcher, in a mount namespace that ends with it."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from hmcore.errors import LabError
from hmctl.lab import shell

# Images and containers of the engine (containerd's since Docker 29): it mounts overlays there, which an overlay cannot carry.
ENGINE_FOLDERS = ("docker", "containerd")
_HOST_KEY = "etc/ssh/ssh_host_ed25519_key"


@dataclass(frozen=True, slots=True)
class Disk:
    """The directory of one host, and the base image below it."""

    folder: Path
    image: Path

    @property
    def upper(self) -> Path:
        return self.folder / "upper"

    def prepare(self, name: str, authorized_key: str, kernel: str) -> None:
        """Make the host somebody. What an earlier call made stays: identity and keys outlive a reboot."""
        for part in ("upper", "work", "root", "bpf", *ENGINE_FOLDERS):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        self.upper.chmod(0o755)
        self._write("etc/hostname", f"{name}\n")
        self._write("etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost\n")
        self._write("etc/ssh/lab_authorized_keys", authorized_key, mode=0o644)
        if not (self.upper / "etc/machine-id").is_file():
            self._write("etc/machine-id", f"{uuid.uuid4().hex}\n", mode=0o444)
        if not (self.upper / f"{_HOST_KEY}.pub").is_file():
            key = self._place(_HOST_KEY)
            key.unlink(missing_ok=True)
            shell.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{name}", "-f", str(key)])
        self._link_headers(kernel)

    def host_key(self) -> str:
        """The public host key, as known_hosts(5) has it: type and key."""
        return " ".join((self.upper / f"{_HOST_KEY}.pub").read_text().split()[:2])

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=False)

    def _link_headers(self, kernel: str) -> None:
        """Let the running kernel find headers. The image's are the distribution's: good for programs that use UAPI types."""
        modules = self.image / "usr/lib/modules" / kernel
        if (modules / "build").exists():
            return
        sources = sorted((self.image / "usr/src").glob("linux-headers-*"))
        common = [s for s in sources if s.name.endswith("-common")]
        build = [s for s in sources if s not in common]
        if not build:
            raise LabError(f"the base image {self.image} has no kernel headers", fix=f"rm -r {self.image}, then hmctl lab up")
        for link, target in (("build", build[-1]), ("source", (common or build)[-1])):
            place = self._place(f"usr/lib/modules/{kernel}/{link}")
            place.unlink(missing_ok=True)
            place.symlink_to(f"/usr/src/{target.name}")

    def _write(self, name: str, text: str, mode: int = 0o644) -> None:
        place = self._place(name)
        place.write_text(text)
        place.chmod(mode)

    def _place(self, name: str) -> Path:
        """A path in the upper layer. Directories get the owner and mode of those that they will hide."""
        place = self.upper / name
        for parent in reversed(place.relative_to(self.upper).parents[:-1]):
            folder, below = self.upper / parent, self.image / parent
            if not folder.exists():
                folder.mkdir()
                if below.exists():
                    status = below.stat()
                    folder.chmod(status.st_mode & 0o7777)
                    os.chown(folder, status.st_uid, status.st_gid)
                else:
                    folder.chmod(0o755)
        return place
