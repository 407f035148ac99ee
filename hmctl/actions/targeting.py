"""What deploy brings each host to, and by which phases. Builds the releases that this takes, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from hmctl.actions import desired
from hmctl.actions.hosts import Options
from hmctl.bundle.build import Target as ReleaseTarget
from hmctl.bundle.store import Release
from hmctl.output import Output
from hmctl.phases import electorate
from hmctl.phases.activate import SwitchRelease
from hmctl.phases.base import Phase, Target
from hmctl.phases.certificates import IssueCertificates
from hmctl.phases.configure import WriteConfiguration
from hmctl.phases.connect import Reached
from hmctl.phases.packages import InstallPackages
from hmctl.phases.retire import Retire
from hmctl.phases.runner import Timings
from hmctl.phases.start import StartAgent
from hmctl.phases.units import InstallUnits
from hmctl.phases.upload import UploadRelease
from hmctl.render import Renderer

if TYPE_CHECKING:
    from hmcore.config.inventory import Host, Inventory
    from hmctl.state import OperatorStore


class Releases(Protocol):
    """Builds releases, or finds them built (hmctl/bundle/store.py). Blocking."""

    def cached(self, target: ReleaseTarget) -> Release | None: ...
    def get(self, target: ReleaseTarget) -> Release: ...


@dataclass(frozen=True, slots=True)
class Targeting:
    """For one run of deploy."""

    inventory: Inventory
    store: OperatorStore
    releases: Releases
    renderer: Renderer
    output: Output
    options: Options
    timings: Timings
    now: Callable[[], datetime]

    def phases(self) -> tuple[Phase[Target], ...]:
        """What is done to a host, in order."""
        settings = self.inventory.settings
        return (
            InstallPackages(settings.optional_layers, bpf=settings.security.mode != "off"),
            UploadRelease(),
            IssueCertificates(self.inventory.id, self.store.authority, self.now),
            WriteConfiguration(),
            InstallUnits(),
            SwitchRelease(),
            Retire(settings.initialization_timeout),
            StartAgent(settings.initialization_timeout),
        )

    async def targets(self, chosen: Sequence[Host], reached: Reached, *, also: Collection[str]) -> list[Target]:
        """The release for each kind of host, built here if it was not before; then what each host shall look like. `also`: control nodes
        for the time being, beside those of the inventory."""
        inventory = electorate.with_votes(self.inventory, also)
        chosen = [inventory.host(host.name) for host in chosen]
        kinds = dict.fromkeys(desired.release_target(reached.facts[host.name]) for host in chosen if host.name in reached.facts)
        with self.timings.span("Build release"):
            built = {kind: self.releases.cached(kind) or await self._build(kind) for kind in kinds}
        ca = self.store.ca_certificate() if self.store.has_authority() else None
        bootstrap = self.store.bootstrap() if ca or not self.options.dry_run else "made-when-deployed"
        keys = desired.Keys(ca, bootstrap)
        return desired.targets(inventory, chosen, reached.facts, built, keys, self.renderer, self.now())

    async def _build(self, kind: ReleaseTarget) -> Release:
        with self.output.progress() as progress:
            progress.update("release", f"building it for {kind}, once")
            release = await asyncio.to_thread(self.releases.get, kind)
            progress.finish("release", f"built for {kind}")
        return release

    def with_authority(self, targets: list[Target], chosen: Sequence[Host], reached: Reached) -> list[Target]:
        """After consent: the cluster's CA, made now if this is its first deploy, in every host's desired state."""
        if self.store.has_authority():
            return targets
        authority = self.store.create_authority(self.now())
        built = {desired.release_target(target.facts): target.desired.release for target in targets}
        keys = desired.Keys(authority.certificate, self.store.bootstrap())
        return desired.targets(self.inventory, chosen, reached.facts, built, keys, self.renderer, self.now())
