"""Who we are to a host, and as whom we act there: login options, sudo, and what to say when neither is enough. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hmcore.config.inventory import SshTarget

# sudo may or may not read the password line that we send first; everything up to the mark is therefore skipped.
_SKIP = 'while IFS= read -r line && [ "$line" != "$0" ]; do :; done; exec "$@"'


def login_options(target: SshTarget) -> dict[str, Any]:
    """Where to and as whom. What the inventory leaves open, the ssh_config, ~/.ssh and the agent decide, as for ssh itself."""
    chosen: dict[str, Any] = {"preferred_auth": ("publickey",), "config": [str(target.config)] if target.config else None}
    if target.user is not None:
        chosen["username"] = target.user
    if target.port is not None:
        chosen["port"] = target.port
    if target.key is not None:
        chosen["client_keys"] = [str(target.key)]
    if not target.agent:
        chosen["agent_path"] = None
    return chosen


def command_line(target: SshTarget, argv: Sequence[str], sudo: bool) -> tuple[str, bytes]:
    """The command line for the remote shell, and what must be written to its stdin first."""
    if not sudo or not target.sudo:
        return join(argv), b""
    if target.sudo_password is None:
        return join(["sudo", "-n", "--", *argv]), b""
    mark = f"hm-{secrets.token_hex(8)}"
    wrapped = ["sudo", "-k", "-S", "-p", "", "--", "sh", "-c", _SKIP, mark, *argv]
    return join(wrapped), f"{target.sudo_password}\n{mark}\n".encode()


def mend(target: SshTarget, own_keys: bool) -> str:
    """What makes the host accept us. `own_keys`: whether the operator has keys of his own, where ssh looks for them."""
    if target.key is not None:
        return _copy_key(target)
    first = "" if own_keys else "ssh-keygen, then "
    return f"{first}{_copy_key(target)}; or name the key that it accepts in the inventory: ssh: {{key: PATH}}"


def own_keys(home: Path) -> bool:
    """Whether `home` has keys that we offer unasked, or an ssh_config that may name some."""
    folder = home / ".ssh"
    return (folder / "config").exists() or any(path.suffix != ".pub" for path in folder.glob("id_*"))


def _copy_key(target: SshTarget) -> str:
    words = ["ssh-copy-id", *(("-p", str(target.port)) if target.port else ()), *(("-i", str(target.key)) if target.key else ())]
    return join([*words, f"{target.user}@{target.address}" if target.user else target.address])


def by_hand(target: SshTarget) -> str:
    """The command that shows how far SSH by itself gets, for a terminal: OpenSSH takes no host:port."""
    words = ["ssh", "-v", *(("-p", str(target.port)) if target.port else ()), *(("-J", str(target.bastion)) if target.bastion else ())]
    return join([*words, f"{target.user}@{target.address}" if target.user else target.address])


def offered(target: SshTarget, environ: Mapping[str, str], own_keys: bool) -> str:
    """What we would prove our identity with, for the message that says that it was not enough."""
    agent = bool(environ.get("SSH_AUTH_SOCK"))
    if target.key is None and target.config is None and not own_keys:
        missing = "there are no keys in ~/.ssh"
        if not target.agent:
            return missing
        return f"we offered the keys of ssh-agent; {missing}" if agent else f"{missing}, and no ssh-agent is running"
    said = [f"the key {target.key}" if target.key else "the keys in ~/.ssh"]
    if target.agent:
        said.append("the keys of ssh-agent" if agent else "no ssh-agent (none is running)")
    return f"we offered {' and '.join(said)}"
