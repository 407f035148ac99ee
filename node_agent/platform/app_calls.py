"""Calls about apps, and what they are made of: who may make them, and what answers each. A part of the table of api.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from hmcore.api import ChangeReply
from hmcore.apps.calls import (
    APPS,
    DEPLOY,
    LEASE,
    REBALANCE,
    REMOVE,
    RESTART,
    ROLLBACK,
    SCALE,
    TELL,
    AppsReply,
    AppsRequest,
    DeployRequest,
    LeaseReply,
    LeaseRequest,
    RebalanceReply,
    RebalanceRequest,
    RemoveRequest,
    RestartRequest,
    RollbackRequest,
    ScaleRequest,
    TellRequest,
)
from hmcore.apps.secrets import (
    ENROL,
    FETCH,
    LIST_SECRETS,
    PUT_SECRET,
    REMOVE_SECRET,
    UNLOCK,
    EnrolRequest,
    FetchReply,
    FetchRequest,
    PutSecretReply,
    PutSecretRequest,
    RemoveSecretRequest,
    SecretsReply,
    SecretsRequest,
    UnlockReply,
    UnlockRequest,
)
from hmcore.images.calls import (
    HOLD_IMAGE,
    IMAGES,
    NAME_IMAGE,
    REMOVE_IMAGE,
    RESOLVE,
    HoldImageRequest,
    ImagesReply,
    ImagesRequest,
    NameImageRequest,
    RemoveImageRequest,
    ResolveReply,
    ResolveRequest,
)
from hmcore.stoq.greeting import Peer
from node_agent.platform.apps import Apps
from node_agent.platform.callers import CHANGERS, NODES, READERS
from node_agent.platform.images import Images
from node_agent.platform.secrets import Secrets

Table = dict[Any, Any]


class AppAnswers(Protocol):
    """What these calls are answered from."""

    @property
    def calls(self) -> Apps: ...
    @property
    def image_calls(self) -> Images: ...
    @property
    def secret_calls(self) -> Secrets: ...
    async def told(self, request: TellRequest, node: str) -> ChangeReply: ...
    async def granted(self, request: LeaseRequest, node: str) -> LeaseReply: ...


def app_calls(answers: Callable[[], AppAnswers]) -> Table:
    """`answers` is asked at each call."""
    return _of_apps(answers) | _of_images(answers) | _of_secrets(answers)


def _of_apps(answers: Callable[[], AppAnswers]) -> Table:
    async def deploy(peer: Peer, request: DeployRequest) -> ChangeReply:
        return await answers().calls.deploy(request, peer.identity)

    async def rollback(peer: Peer, request: RollbackRequest) -> ChangeReply:
        return await answers().calls.rollback(request, peer.identity)

    async def scale(peer: Peer, request: ScaleRequest) -> ChangeReply:
        return await answers().calls.scale(request, peer.identity)

    async def restart(peer: Peer, request: RestartRequest) -> ChangeReply:
        return await answers().calls.restart(request, peer.identity)

    async def remove(peer: Peer, request: RemoveRequest) -> ChangeReply:
        return await answers().calls.remove(request, peer.identity)

    async def rebalance(peer: Peer, request: RebalanceRequest) -> RebalanceReply:
        return await answers().calls.rebalance(request, peer.identity)

    async def apps(_peer: Peer, request: AppsRequest) -> AppsReply:
        return await answers().calls.list(request)

    async def tell(peer: Peer, request: TellRequest) -> ChangeReply:
        return await answers().told(request, peer.identity.name)

    async def lease(peer: Peer, request: LeaseRequest) -> LeaseReply:
        return await answers().granted(request, peer.identity.name)

    return {
        DEPLOY: (CHANGERS, deploy),
        ROLLBACK: (CHANGERS, rollback),
        SCALE: (CHANGERS, scale),
        RESTART: (CHANGERS, restart),
        REMOVE: (CHANGERS, remove),
        REBALANCE: (CHANGERS, rebalance),
        APPS: (READERS, apps),
        TELL: (NODES, tell),
        LEASE: (NODES, lease),
    }


def _of_images(answers: Callable[[], AppAnswers]) -> Table:
    async def name(peer: Peer, request: NameImageRequest) -> ChangeReply:
        return await answers().image_calls.name(request, peer.identity)

    async def remove(peer: Peer, request: RemoveImageRequest) -> ChangeReply:
        return await answers().image_calls.remove(request, peer.identity)

    async def hold(peer: Peer, request: HoldImageRequest) -> ChangeReply:
        return await answers().image_calls.hold(request, peer.identity)

    async def images(_peer: Peer, request: ImagesRequest) -> ImagesReply:
        return await answers().image_calls.list(request)

    async def resolve(_peer: Peer, request: ResolveRequest) -> ResolveReply:
        return await answers().image_calls.resolve(request)

    return {
        NAME_IMAGE: (CHANGERS, name),
        REMOVE_IMAGE: (CHANGERS, remove),
        HOLD_IMAGE: (NODES, hold),
        IMAGES: (READERS, images),
        RESOLVE: (CHANGERS, resolve),
    }


def _of_secrets(answers: Callable[[], AppAnswers]) -> Table:
    async def put(peer: Peer, request: PutSecretRequest) -> PutSecretReply:
        return await answers().secret_calls.put(request, peer.identity)

    async def remove(peer: Peer, request: RemoveSecretRequest) -> ChangeReply:
        return await answers().secret_calls.remove(request, peer.identity)

    async def secrets(_peer: Peer, request: SecretsRequest) -> SecretsReply:
        return await answers().secret_calls.list(request)

    async def enrol(peer: Peer, request: EnrolRequest) -> ChangeReply:
        return await answers().secret_calls.enrol(request, peer.identity)

    async def unlock(peer: Peer, request: UnlockRequest) -> UnlockReply:
        return await answers().secret_calls.unlock(request, peer.identity)

    async def fetch(peer: Peer, request: FetchRequest) -> FetchReply:
        return await answers().secret_calls.fetch(request, peer.identity)

    return {
        PUT_SECRET: (CHANGERS, put),
        REMOVE_SECRET: (CHANGERS, remove),
        LIST_SECRETS: (READERS, secrets),
        ENROL: (NODES, enrol),
        UNLOCK: (NODES, unlock),
        FETCH: (NODES, fetch),
    }
