"""Who we are to a registry: the credentials that the cluster keeps for it. Many images need none, so that they cannot be had is not yet a
failure; it is told if the registry refuses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hmcore.apps.secrets import Credentials, registry_host
from hmcore.errors import HyperMeshError, ImageUnavailable, RegistryDenied

Registries = Callable[[str], Awaitable[Credentials | None]]  # by host, as registry_host writes it; raises HyperMeshError


@dataclass(frozen=True, slots=True)
class Login:
    """To `registry`, a host. `trouble`: why the credentials could not be had."""

    registry: str
    credentials: tuple[str, str] | None = None
    trouble: str = ""

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Around what asks the registry: a refusal says as whom it was asked, and what helps; another failure, that it was asked by nobody
        where that was not meant."""
        try:
            yield
        except RegistryDenied as error:
            asked = f"as {self.credentials[0]}" if self.credentials else "without credentials"
            said = f"{error.message}; and the registry was asked {asked}{f': {self.trouble}' if self.trouble else ''}"
            raise RegistryDenied(said, fix=f"hmctl secret set --registry {self.registry} --username USER") from error
        except ImageUnavailable as error:
            if not self.trouble:
                raise
            raise type(error)(f"{error.message}; and the registry was asked without credentials: {self.trouble}", fix=error.fix) from error


async def nobody(host: str) -> Credentials | None:
    """There are no credentials."""
    return None


async def login(registries: Registries, registry: str) -> Login:
    host = registry_host(registry)
    try:
        found = await registries(host)
    except HyperMeshError as error:
        return Login(host, trouble=error.message)
    return Login(host, None if found is None else (found.username, found.password))
