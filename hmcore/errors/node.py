"""The node's end: its consensus and its disk, its layers, and what Docker refuses."""

from __future__ import annotations

from hmcore.errors.base import HyperMeshError


class InitializationFailed(HyperMeshError):
    pass


class ConsensusError(HyperMeshError):
    pass


class StorageDamaged(ConsensusError):
    """`path` is damaged at byte `offset`. Never loaded silently: the node refuses to start."""

    def __init__(self, message: str, *, path: str, offset: int, fix: str | None = None) -> None:
        super().__init__(f"{path} is damaged at byte {offset}: {message}", fix=fix)
        self.path = path
        self.offset = offset


class StorageFull(ConsensusError):
    pass


class StorageFailed(ConsensusError):
    pass


class ReleaseTooOld(ConsensusError):
    """The cluster is at feature level `level`, of which this release knows nothing: going on would be to diverge."""

    def __init__(self, level: int, known: int) -> None:
        super().__init__(f"this release knows feature level {known}, the cluster is at {level}", fix="hmctl deploy")
        self.level = level


class CommittedConflict(ConsensusError):
    pass


class LayerMissing(HyperMeshError):
    pass


class LayerDown(HyperMeshError):
    pass


class NoLease(HyperMeshError):
    pass


class ContainerRefused(HyperMeshError):
    pass


class ImageGone(ContainerRefused):
    pass


class PartGone(ContainerRefused):
    pass


class NameTaken(ContainerRefused):
    pass


class PortTaken(ContainerRefused):
    pass


class NoSpace(ContainerRefused):
    pass
