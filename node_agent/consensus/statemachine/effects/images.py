"""Images: what their names mean, and which nodes have all of them. A table by name; what an app may still come back to although its name
means something else by now stands there by its id, without a name."""

from __future__ import annotations

from msgspec.structs import replace

from hmcore.apps.records import Image
from hmcore.digests import short
from node_agent.consensus.statemachine.appcommands import HoldImage, PutImage, RemoveImage
from node_agent.consensus.statemachine.commands import Applied, Refused, Result
from node_agent.consensus.statemachine.state import Draft, Entry

MOST_IMAGES = 1000  # each is some 170 bytes a layer in every node's memory, and all go into one answer


def put_image(draft: Draft, command: PutImage, entry: Entry) -> Result:
    """The name means this image from now on.

    One image may be kept as other layers than before, where another tool compressed them: then it is kept as these everywhere, and who had
    the others has nothing of it. Else `holders` are added to those that are known.
    """
    wanted, images = command.image, draft.table("images")
    if not wanted.name or not wanted.layers:
        return Refused("an image has a name and layers")
    before: Image | None = images.get(wanted.name)
    if before is None and len(images) >= MOST_IMAGES:
        return Refused(f"there are {MOST_IMAGES} images: remove some first")
    holders = frozenset(wanted.holders) & draft.table("nodes").keys()
    if any(each.layers == wanted.layers for each in _of(draft, wanted.id)):
        holders |= _holders(draft, wanted.id)
    for each in _of(draft, wanted.id):
        _put(draft, replace(each, layers=wanted.layers, config_size=wanted.config_size, holders=tuple(sorted(holders))))
    if before is not None and before.id == wanted.id:
        return Applied(changed=False)
    made = replace(wanted, holders=tuple(sorted(holders)), author=entry.author, unix_time=entry.unix_time, index=entry.index)
    draft.put("images", made.key, made)
    if wanted.id in draft.table("images"):  # it has a name again
        draft.remove("images", wanted.id)
    if before is not None:
        _retire(draft, before)
    instead = "" if before is None else f" instead of {short(before.id)}"
    draft.record(entry, "image.named", wanted.name, f"it is {short(wanted.id)}{instead}")
    return Applied()


def remove_image(draft: Draft, command: RemoveImage, entry: Entry) -> Result:
    before: Image | None = draft.table("images").get(command.name)
    if before is None or not before.name:
        return Applied(changed=False)
    draft.remove("images", before.key)
    _retire(draft, before)
    draft.record(entry, "image.removed", command.name, f"it was {short(before.id)}")
    return Applied()


def hold_image(draft: Draft, command: HoldImage, entry: Entry) -> Result:
    if command.node not in draft.table("nodes"):
        return Refused(f"there is no node {command.node}")
    if not _of(draft, command.image_id):
        return Refused(f"there is no image {command.image_id}")
    known = _holders(draft, command.image_id)
    after = known | {command.node} if command.holds else known - {command.node}
    _hold(draft, command.image_id, after)
    return Applied(changed=after != known)


def forget_node(draft: Draft, name: str) -> None:
    """A node that was removed has nothing any more, as far as anybody will ever hear."""
    for id in {image.id for image in draft.table("images").values() if name in image.holders}:
        _hold(draft, id, _holders(draft, id) - {name})


def forget_unused(draft: Draft) -> None:
    """Generations were forgotten: what is there only for them goes with them."""
    unnamed = [image for image in draft.table("images").values() if not image.name]
    wanted = _wanted(draft) if unnamed else frozenset()
    for image in unnamed:
        if image.id not in wanted:
            draft.remove("images", image.key)


def _retire(draft: Draft, image: Image) -> None:
    """Its name is another's. If it has no other, and an app may come back to it, it stays."""
    if not _of(draft, image.id) and image.id in _wanted(draft):
        kept = replace(image, name="")
        draft.put("images", kept.key, kept)


def _wanted(draft: Draft) -> frozenset[str]:
    """Ids that generations refer to."""
    specs = (made.spec for made in draft.table("generations").values())
    return frozenset(service.container.image_id for spec in specs for service in spec.services.values())


def _hold(draft: Draft, id: str, holders: frozenset[str]) -> None:
    for image in _of(draft, id):
        _put(draft, replace(image, holders=tuple(sorted(holders))))


def _put(draft: Draft, image: Image) -> None:
    if draft.table("images")[image.key] != image:
        draft.put("images", image.key, image)


def _of(draft: Draft, id: str) -> list[Image]:
    return [image for image in draft.table("images").values() if image.id == id]


def _holders(draft: Draft, id: str) -> frozenset[str]:
    return frozenset(node for image in _of(draft, id) for node in image.holders)
