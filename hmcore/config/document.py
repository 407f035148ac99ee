"""The inventory as it is written: which keys there are and what each may hold. inventory.py makes it into what the program uses.

The descriptions are what a person reads when a key is missing.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from hmcore.config import hostspec
from hmcore.config.hostspec import HostSpec
from hmcore.config.interpolate import plain
from hmcore.config.problems import FromEnvironment, describe
from hmcore.errors import UsageError
from hmcore.records import Role

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ID = re.compile(r"hm-[a-z0-9]{10}")
_LABEL_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_PYTHON = re.compile(r"/[A-Za-z0-9/._+-]{1,200}")


def _refuse(message: str, hint: str | None = None) -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": message, "hint": hint})


def _matching(pattern: re.Pattern[str], what: str, allowed: str) -> BeforeValidator:
    """Before pydantic turns it into a plain str: whether it came from the environment must still be known for the message."""

    def check(value: object) -> object:
        if isinstance(value, str) and not pattern.fullmatch(value):
            raise _refuse(f"{describe(value)} is no {what}", allowed)
        return value

    return BeforeValidator(check)


def _endpoint(value: object) -> HostSpec:
    if not isinstance(value, str):
        raise _refuse(f"must be text, not {describe(value)}", "an IP address or host name, perhaps as user@address:port")
    try:
        return hostspec.parse(value)
    except UsageError as error:
        message = f"{describe(value)} is no address" if isinstance(value, FromEnvironment) else error.message
        raise _refuse(message, error.fix) from None


def _file(value: str) -> str:
    if not value or "\0" in value:
        raise _refuse("must be the path of a file", "relative to the inventory's folder; ~ is your home")
    return str(value)


def _file_or_none(value: object) -> str | Literal[False]:
    if value is False:
        return False
    if not isinstance(value, str):
        raise _refuse(f"must be the path of an ssh_config, or false to read none, not {describe(value)}")
    return _file(value)


def _role(value: object) -> Role:
    try:
        return Role(str(value))
    except ValueError:
        near = {"c": "control", "m": "control", "w": "worker"}.get(str(value)[:1].lower())
        raise _refuse(f"must be control or worker, not {describe(value)}", f"did you mean {near}?" if near else None) from None


Name = Annotated[str, _matching(_NAME, "name", "lower-case letters, digits and inner hyphens, 63 at most")]
ClusterId = Annotated[
    str, _matching(_ID, "cluster id", "hm- and ten lower-case letters or digits, drawn at random: `hmctl init` writes one")
]
User = Annotated[str, _matching(hostspec.USER, "user name", "letters, digits and . _ -, 32 at most")]
Endpoint = Annotated[HostSpec, PlainValidator(_endpoint)]
Port = Annotated[int, BeforeValidator(plain), Field(ge=1, le=65_535)]
Flag = Annotated[bool, BeforeValidator(plain)]
File = Annotated[str, AfterValidator(_file)]
LabelKey = Annotated[str, _matching(_LABEL_KEY, "label", "letters, digits and inner . _ / -, 63 at most")]
LabelValue = Annotated[str, _matching(_LABEL_VALUE, "label value", "letters, digits and inner . _ -, 63 at most")]


def _long_form(value: object) -> object:
    """`bastion: user@host:port` as a mapping."""
    return {"address": value} if isinstance(value, str) else value


class Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Reach(Document):
    """How SSH gets to a machine. None: as the level above says, and in the end as ssh does by itself."""

    user: User | None = None
    port: Port | None = None
    key: File | None = None
    agent: Flag | None = None
    config: Annotated[str | Literal[False], PlainValidator(_file_or_none)] | None = None
    known_hosts: File | None = None
    bastion: Annotated[Bastion | None, BeforeValidator(_long_form)] = None


class Bastion(Reach):
    address: Annotated[Endpoint, Field(description="the bastion's IP address or host name")]


class SshDefaults(Reach):
    """`ssh:` at the top: for every host that does not say otherwise."""

    sudo: Flag | None = None
    sudo_password: str | None = None
    python: Annotated[str, _matching(_PYTHON, "path of a Python", "an absolute path, such as /usr/bin/python3")] | None = None


class Ssh(SshDefaults):
    """`ssh:` of a host."""

    address: Endpoint | None = None


class HostDocument(Document):
    name: Name | None = None
    address: Annotated[Endpoint, Field(description="the IP address or host name that the other nodes reach it at")]
    role: Annotated[Role, PlainValidator(_role)] | None = None
    port: Port | None = None
    labels: dict[LabelKey, LabelValue] | None = None
    apps: Flag | None = None
    ssh: Ssh | None = None


class InventoryDocument(Document):
    """`preset`, `settings` and each of `hosts` are checked by themselves: inventory.py."""

    id: Annotated[ClusterId, Field(description="hm- and ten lower-case letters or digits, drawn at random: `hmctl init` writes one")]
    name: Annotated[Name, Field(description="what people call the cluster")]
    preset: Any = None
    packages: Literal["install", "require"] | None = None
    ssh: SshDefaults | None = None
    settings: Any = None
    hosts: Annotated[list[Any], Field(description="a list of at least one host: user@address, or a mapping with address and role")]
