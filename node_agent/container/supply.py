"""Where this node's images come from, as a component: its store of content, the port at which others take from it, and what it keeps for
them. A pull from a registry is Docker's own business, and works without all this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hmcore.apps.records import Image
from hmcore.errors import BlobMissing
from hmcore.images.pinning import known
from hmcore.pki import Identity, Kind
from hmcore.records import Node, NodeState
from hmcore.stoq.bulk.client import BulkClient, connect
from hmcore.stoq.bulk.server import BulkListener
from hmcore.stoq.bulk.tls import context
from hmcore.stoq.mtls import Credentials
from node_agent.container.images import Images
from node_agent.container.keeping import Keeper
from node_agent.container.pinning import Pinning
from node_agent.container.registries import Registries, nobody
from node_agent.transport.blobs import BlobStore
from node_agent.transport.fetching import Fetcher

if TYPE_CHECKING:
    import ssl

    from node_agent.container.engine_images import DockerImages

DIALLING = 5.0  # seconds


class View(Protocol):
    """The replicated state, as far as it concerns images."""

    @property
    def images(self) -> Mapping[str, Image]:
        """By Image.key."""

    @property
    def nodes(self) -> Mapping[str, Node]: ...


class Supply:
    """See node_agent.platform.lifecycle.Component. `images` is for those that run containers, `pinning` for those that deploy."""

    name = "images"
    serving = True

    def __init__(
        self,
        me: Identity,
        folder: Path,
        *,
        listen: tuple[str, int],
        credentials: Callable[[], Credentials],
        view: View,
        docker: Callable[[], DockerImages | None],
        tell: Callable[[str, bool], Awaitable[None]],
        registries: Registries = nobody,
    ) -> None:
        """`listen`: address and TCP port. `credentials` are asked for when the component comes up. `docker`: None while it is away. `tell`
        brings to the leader whether all of an image (its id) is here; raises HyperMeshError. `registries`: who we are to one
        (node_agent.vault.fetching.Fetching.credentials)."""
        self._me = me
        self._listen = listen
        self._credentials = credentials
        self._view = view
        self._ours: tuple[Credentials, ssl.SSLContext] | None = None
        self._listener: BulkListener | None = None
        self._seen: tuple[object, object] = (None, None)
        self.blobs = BlobStore(folder)
        self._fetcher = Fetcher(me.name, self.blobs, nodes=lambda: [name for name in self._alive() if name != me.name], dial=self._dial)
        record = self._record
        self.images = Images(docker=docker, blobs=self.blobs, fetch=self._fetcher.fetch, record=record, registries=registries)
        self.pinning = Pinning(record=record, docker=docker, registries=registries)
        self._keeper = Keeper(
            me.name,
            records=lambda: view.images.values(),
            nodes=self._alive,
            blobs=self.blobs,
            images=self.images,
            docker=docker,
            tell=tell,
        )

    # --- as a component

    async def initialize(self) -> None:
        """Raises BlobError, TransportError (the port), PkiError."""
        await self.blobs.open()
        credentials = self._credentials()
        self._ours = credentials, context(credentials, serving=False)
        host, port = self._listen
        listener = BulkListener(host, port, credentials=credentials, cluster=self._me.cluster, store=self.blobs, admit=self._why_not)
        await listener.open()
        self._listener = listener

    async def run(self) -> None:
        await self._keeper.run()

    async def check(self) -> str | None:
        return self._keeper.trouble

    async def stop(self) -> None:
        """What was on its way is gone on with later."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()
        self.blobs.close()

    # --- what others say

    def state_changed(self) -> None:
        """Something was applied."""
        seen = (self._view.images, self._view.nodes)
        if any(new is not old for new, old in zip(seen, self._seen, strict=True)):
            self._seen = seen
            self._keeper.poke()

    @property
    def port(self) -> int:
        """The one listened on; differs from the one asked for when that was 0."""
        return self._listen[1] if self._listener is None else self._listener.port

    # --- inside

    def _record(self, image: str) -> Image | None:
        return known(self._view.images, image)

    def _alive(self) -> list[str]:
        return [node.name for node in self._view.nodes.values() if node.state is not NodeState.DOWN]

    def _why_not(self, peer: Identity) -> str | None:
        if peer.kind is Kind.NODE and peer.name not in self._view.nodes:
            return f"{peer.name} is no member of the cluster"
        return None

    async def _dial(self, name: str) -> BulkClient:
        node = self._view.nodes.get(name)
        if node is None or self._ours is None:
            raise BlobMissing(f"{name} cannot be asked: {'this node is still starting' if node else 'it is no member'}")
        credentials, setup = self._ours
        server = Identity(self._me.cluster, Kind.NODE, name)
        return await connect(node.address, node.port, credentials=credentials, server=server, timeout=DIALLING, setup=setup)
