"""Calls about images. A change goes to the leader (others answer NotLeader and name it) and carries an id: asked again under the same id,
it is carried out once. What an image is made of travels apart, before it is named here (hmcore/stoq/bulk/)."""

from __future__ import annotations

from typing import Literal

import msgspec

from hmcore.api import ChangeReply, Method
from hmcore.apps.records import Image


class NameImageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Let `image.name` mean this image from now on. `image.holders`: the nodes that its content was brought to; who asked, the log index
    and the time are filled in by the cluster. The answer's `changed`: it meant another one, or nothing."""

    id: str
    image: Image


class RemoveImageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The name means nothing any more. Content that no other name needs is removed from the nodes after a while; containers run on."""

    id: str
    name: str


class HoldImageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Of nodes, each of itself: it has all of the image's content now; or (`holds` False) not any more."""

    id: str
    image_id: str
    holds: bool = True


class ImagesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`consistent`: linearizable, at the cost of a round between the control nodes."""

    consistent: bool = False


class ImagesReply(msgspec.Struct, frozen=True, kw_only=True):
    """As of log index `index`, by name; first those that apps may come back to, without one."""

    index: int
    images: list[Image] = []


class Pinned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a name means at this moment, for all nodes and for good. `image`: what to ask for; of a registry's image it says the digest.
    `id`: of the image's configuration, where the cluster or a node's Docker has it. `unasked`: why a registry could not be asked, where it
    therefore is what the app had."""

    image: str
    id: str = ""
    unasked: str = ""


Pull = Literal["", "always", "missing", "never"]


class ResolveRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`pull`: as pull_policy has it. Empty: the cluster's image, else the registry's, else what the answering node's Docker has. `always`:
    the registry's, and no other. `never`: any but the registry's. `missing`: what the app `had`, by name, goes before the registry's; with
    an empty `pull`, it stands in for a registry that gives no answer."""

    names: tuple[str, ...]
    pull: Pull = ""
    had: dict[str, Pinned] = {}


class ResolveReply(msgspec.Struct, frozen=True, kw_only=True):
    """By the name that was asked for. `failed`: why one means nothing, and what would help."""

    found: dict[str, Pinned] = {}
    failed: dict[str, str] = {}


NAME_IMAGE: Method[NameImageRequest, ChangeReply] = Method("images.name", NameImageRequest, ChangeReply)
REMOVE_IMAGE: Method[RemoveImageRequest, ChangeReply] = Method("images.remove", RemoveImageRequest, ChangeReply)
HOLD_IMAGE: Method[HoldImageRequest, ChangeReply] = Method("images.hold", HoldImageRequest, ChangeReply)
RESOLVE: Method[ResolveRequest, ResolveReply] = Method("images.resolve", ResolveRequest, ResolveReply)
IMAGES: Method[ImagesRequest, ImagesReply] = Method("images.list", ImagesRequest, ImagesReply)
