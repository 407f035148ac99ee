"""Which image a service is of, how it is built where it is, and when it is looked for. Pure: nothing is built here."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from hmctl.compose.parts.names import IMAGE, KEY, LABEL, PATH, VARIABLE
from hmctl.compose.parts.network import extra_hosts
from hmctl.compose.parts.part import Fields, Part

PullPolicy = Literal["always", "missing", "never"]
_EVERY = re.compile(r"daily|weekly|refresh|every_(?:[0-9]{1,9}[wdhms])+", re.ASCII)
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]{0,20}://\S+|git@\S+|github\.com/\S+", re.ASCII)
_TEXT = re.compile(r"[^\x00-\x1f\x7f]{1,2000}")


@dataclass(frozen=True, slots=True)
class Build:
    """How the operator's own Docker makes a service's image. Paths are absolute, on the operator's machine; `context` may be a URL.

    `dockerfile` empty: there is `dockerfile_inline`. `args`: None: what the operator's environment has; never shown, they may be secret.
    `shm_size` in bytes, 0: Docker's own.
    """

    image: str
    context: str
    dockerfile: str = ""
    dockerfile_inline: str = field(default="", repr=False)
    args: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    target: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    cache_from: tuple[str, ...] = ()
    network: str = ""
    extra_hosts: tuple[str, ...] = ()
    contexts: Mapping[str, str] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()
    shm_size: int = 0
    no_cache: bool = False
    pull: bool = False


def image_of(service: Fields, app: str, name: str) -> str:
    """A built one that the file gives no name is called after its service, as with Compose."""
    part = service["image"]
    if part.value is None and service.given("build"):
        return f"{app}-{name}".lower()
    if part.value is None:
        service.part.wrong("has no image", "image: NAME, or build: FOLDER")
        return ""
    return part.text(IMAGE)


def build_of(part: Part, image: str, folder: str) -> Build | None:
    """`folder`: of the compose files. None: nothing is built."""
    if part.value is None:
        return None
    if isinstance(part.value, str):
        context = _place(part, folder)
        return Build(image=image, context=context, dockerfile=_dockerfile(context, ""))
    fields = part.of("service.build")
    inline = fields["dockerfile_inline"].text()
    if inline and fields.given("dockerfile"):
        fields["dockerfile_inline"].wrong("cannot be together with dockerfile", "one of the two")
    context = _place(fields["context"], folder) or folder
    further = fields["additional_contexts"]
    contexts = {name: _place(further.with_value(value), folder) for name, value in further.pairs(KEY).items()}
    return Build(
        image=image,
        context=context,
        dockerfile="" if inline else _dockerfile(context, _word(fields["dockerfile"])),
        dockerfile_inline=inline,
        args=fields["args"].pairs(VARIABLE),
        target=fields["target"].text(KEY),
        labels=fields["labels"].said(LABEL),
        cache_from=tuple(word for entry in fields["cache_from"].entries() if (word := _word(entry))),
        network=fields["network"].text(KEY),
        extra_hosts=extra_hosts(fields["extra_hosts"]),
        contexts=contexts,
        platforms=tuple(word for entry in fields["platforms"].entries() if (word := _word(entry))),
        shm_size=fields["shm_size"].size(),
        no_cache=fields["no_cache"].boolean(),
        pull=fields["pull"].boolean(),
    )


def pull_policy(part: Part, *, built: bool) -> PullPolicy | None:
    """None: the file says nothing. Images are looked for when an app is deployed, and then only. `built`: the service has build:."""
    policy = _policy(part, built=built)
    if policy is not None and built:
        part.warn("does nothing here", "what has build: is built at every deploy, and looked for nowhere")
        return None
    return policy


def _policy(part: Part, *, built: bool) -> PullPolicy | None:
    if part.value is None:
        return None
    match part.text():
        case "missing" | "if_not_present":
            return "missing"
        case "always":
            return "always"
        case "never":
            return "never"
        case "build":
            if not built:
                part.wrong("there is nothing to build", "build: FOLDER")
            return None
        case text if _EVERY.fullmatch(text):
            if not built:
                part.warn("counts as always", "a newer image is looked for at every deploy, and only then")
            return "always"
        case _:
            if isinstance(part.value, str):
                part.wrong("must be one of always, missing, never, build")
            return None


def _place(part: Part, folder: str) -> str:
    """A context: a folder, or a URL."""
    text = _word(part)
    if not text or _REMOTE.fullmatch(text):
        return text
    path = posixpath.normpath(posixpath.join(folder, text))
    if not PATH.holds(path):
        part.wrong("is no folder of this machine, nor a URL")
        return ""
    return path


def _dockerfile(context: str, name: str) -> str:
    if _REMOTE.fullmatch(context):
        return name or "Dockerfile"
    return posixpath.normpath(posixpath.join(context, name or "Dockerfile"))


def _word(part: Part) -> str:
    """One line of text; not one that a command would take for an option."""
    text = part.text()
    if text and (not _TEXT.fullmatch(text) or text.startswith("-")):
        part.wrong("cannot hold line breaks, nor begin with -")
        return ""
    return text
