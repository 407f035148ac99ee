"""What Docker says of its images. Pure and total, as info.py is for containers."""

from __future__ import annotations

from dataclasses import dataclass

from hmcore.digests import is_digest


@dataclass(frozen=True, slots=True)
class LocalImage:
    """`id`: Docker's own, which is the digest of the configuration where Docker keeps images itself, and of a manifest where containerd
    does. `names`: with a tag, and with the digest of a registry's manifest. `layers`: diff ids, the lowest first; none in a list of
    images."""

    id: str
    names: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PullProgress:
    """Bytes of the layers that a pull has heard of, in the order of Docker's lines."""

    done: int = 0
    total: int = 0


class PullCount:
    """Adds up what Docker says of each layer while it pulls."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}

    def take(self, said: object) -> PullProgress:
        if isinstance(said, dict) and isinstance(id := said.get("id"), str):
            detail = said.get("progressDetail")
            detail = detail if isinstance(detail, dict) else {}
            done, total = detail.get("current"), detail.get("total")
            if said.get("status") == "Downloading" and isinstance(done, int) and isinstance(total, int) and 0 <= done <= total:
                self._layers[id] = (done, total)
            elif said.get("status") in ("Download complete", "Pull complete") and id in self._layers:
                self._layers[id] = (self._layers[id][1], self._layers[id][1])
        return PullProgress(sum(done for done, _ in self._layers.values()), sum(total for _, total in self._layers.values()))


def image_of(answer: object) -> LocalImage | None:
    """An entry of Docker's list, or what it says of one; None when it names no image."""
    if not isinstance(answer, dict) or not isinstance(id := answer.get("Id"), str) or not is_digest(id):
        return None
    root = answer.get("RootFS")
    layers = _texts(root.get("Layers")) if isinstance(root, dict) else ()
    names = (*_texts(answer.get("RepoTags")), *_texts(answer.get("RepoDigests")))
    return LocalImage(id, tuple(name for name in names if not name.startswith("<none>")), layers)


def images_of(answer: object) -> list[LocalImage]:
    found = (image_of(each) for each in (answer if isinstance(answer, list) else []))
    return [image for image in found if image is not None]


def keeps_in_containerd(info: object) -> bool:
    """By what `docker info` says of the driver."""
    status = info.get("DriverStatus") if isinstance(info, dict) else None
    pairs = [pair for pair in status if isinstance(pair, list) and len(pair) == 2] if isinstance(status, list) else []
    return any(isinstance(pair[1], str) and pair[1].startswith("io.containerd.snapshotter.") for pair in pairs)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()
