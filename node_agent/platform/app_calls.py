"""Calls about apps, and what they are made of: who may make them, and what answers each. A part of the table of api.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

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
    LeaseReply,
    LeaseRequest,
    TellRequest,
)
from hmcore.apps.secrets import ENROL, FETCH, LIST_SECRETS, PUT_SECRET, REMOVE_SECRET, UNLOCK
from hmcore.images.calls import HOLD_IMAGE, IMAGES, NAME_IMAGE, REMOVE_IMAGE, RESOLVE
from hmcore.stoq.greeting import Peer
from node_agent.platform.apps import Apps
from node_agent.platform.callers import CHANGERS, NODES, READERS
from node_agent.platform.images import Images
from node_agent.platform.routes import Route, read, route, signed
from node_agent.platform.secrets import Secrets


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


def app_calls(answers: Callable[[], AppAnswers]) -> list[Route]:
    """`answers` is asked at each call."""

    async def tell(peer: Peer, request: TellRequest) -> ChangeReply:
        return await answers().told(request, peer.identity.name)

    async def lease(peer: Peer, request: LeaseRequest) -> LeaseReply:
        return await answers().granted(request, peer.identity.name)

    return [
        signed(DEPLOY, CHANGERS, lambda: answers().calls.deploy),
        signed(ROLLBACK, CHANGERS, lambda: answers().calls.rollback),
        signed(SCALE, CHANGERS, lambda: answers().calls.scale),
        signed(RESTART, CHANGERS, lambda: answers().calls.restart),
        signed(REMOVE, CHANGERS, lambda: answers().calls.remove),
        signed(REBALANCE, CHANGERS, lambda: answers().calls.rebalance),
        read(APPS, READERS, lambda: answers().calls.list),
        route(TELL, NODES, tell),
        route(LEASE, NODES, lease),
        signed(NAME_IMAGE, CHANGERS, lambda: answers().image_calls.name),
        signed(REMOVE_IMAGE, CHANGERS, lambda: answers().image_calls.remove),
        signed(HOLD_IMAGE, NODES, lambda: answers().image_calls.hold),
        read(IMAGES, READERS, lambda: answers().image_calls.list),
        read(RESOLVE, CHANGERS, lambda: answers().image_calls.resolve),
        signed(PUT_SECRET, CHANGERS, lambda: answers().secret_calls.put),
        signed(REMOVE_SECRET, CHANGERS, lambda: answers().secret_calls.remove),
        read(LIST_SECRETS, READERS, lambda: answers().secret_calls.list),
        signed(ENROL, NODES, lambda: answers().secret_calls.enrol),
        signed(UNLOCK, NODES, lambda: answers().secret_calls.unlock),
        signed(FETCH, NODES, lambda: answers().secret_calls.fetch),
    ]
