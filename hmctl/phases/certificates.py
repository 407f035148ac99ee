"""The node's certificate. Its key is born on the node and stays there; the operator's CA signs the request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from hmcore import pki
from hmcore.errors import PkiError
from hmctl import layout
from hmctl.facts.agent import Agent
from hmctl.phases.base import Say, Target
from hmctl.remote.base import Remote, Script, check, put

# Run from the uploaded release: `current` may still be another one, or none.
REQUEST = Script("hm-request", 'cd /; PYTHONPATH="$1" exec "$2" -P -B -m node_agent key --cluster "$3" --name "$4"')


def needed(agent: Agent, ca: bytes | None, identity: pki.Identity, now: datetime) -> str | None:
    """Why the node needs a new certificate; None when the present one will do. `ca` is None while there is no CA yet. Pure."""
    if agent.certificate is None or ca is None:
        return "new"
    if not agent.key:
        return "its key is gone"
    try:
        holder = pki.verify(agent.certificate, ca, now, cluster=identity.cluster, serving=True)
        if holder != identity:
            return f"it was issued to {holder}"
        if pki.needs_renewal(agent.certificate, now):
            return "a third of its lifetime is left"
    except PkiError as error:
        return error.message
    return None


@dataclass(frozen=True, slots=True)
class IssueCertificates:
    """`authority` is called when the first certificate is signed: a plan that is only shown makes no CA."""

    cluster: str
    authority: Callable[[], pki.KeyPair]
    now: Callable[[], datetime]
    title = "Issue certificates"
    doing = "issuing its certificate"

    def plan(self, target: Target) -> tuple[str, ...]:
        desired, agent = target.desired, target.facts.agent
        if desired.certificate is not None:
            return (f"issue a certificate ({desired.certificate})",)
        return (f"write {layout.CA}",) if agent.ca != desired.ca else ()

    async def run(self, target: Target, remote: Remote, say: Say) -> str | None:
        authority = self.authority()
        if target.facts.agent.ca != authority.certificate:
            await put(remote, authority.certificate, layout.CA, mode=0o644)
        if target.desired.certificate is None:
            return None
        if target.facts.python is None:
            raise ValueError(f"{target.name} passed preflight without Python")
        identity = pki.Identity(self.cluster, pki.Kind.NODE, target.name)
        release = layout.release(target.desired.release.digest)
        argv = REQUEST.argv(release, target.facts.python.executable, self.cluster, target.name)
        request = await check(remote, argv, timeout=60.0)
        certificate = pki.sign_request(authority, request, identity, self.now())
        await put(remote, certificate, layout.CERTIFICATE, mode=0o644)
        return None

    async def undo(self, target: Target, remote: Remote) -> None:
        """A key without a certificate does no harm: the next run signs for it."""
