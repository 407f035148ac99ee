"""The operator's end: hosts over SSH, releases for them, and test hosts on this machine."""

from __future__ import annotations

from hmcore.errors.base import HyperMeshError


class RemoteError(HyperMeshError):
    pass


class Unreachable(RemoteError):
    pass


class AuthenticationFailed(RemoteError):
    pass


class HostKeyMismatch(RemoteError):
    pass


class SudoRefused(RemoteError):
    pass


class CommandFailed(RemoteError):
    """A remote command ended with `status`. `stderr` is its last output, already trimmed for people."""

    def __init__(self, command: str, status: int, stderr: str, *, host: str | None = None, fix: str | None = None) -> None:
        said = stderr.strip().splitlines()
        super().__init__(f"`{command}` ended with {status}{': ' + said[-1] if said else ''}", host=host, fix=fix)
        self.command = command
        self.status = status
        self.stderr = stderr


class PreflightFailed(HyperMeshError):
    pass


class ReleaseError(HyperMeshError):
    pass


class LabError(HyperMeshError):
    pass
