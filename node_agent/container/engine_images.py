"""Docker's images. Beside engine.py the only home of its SDK, with connections of its own: to load or pull one may take minutes.

Everything blocks; images.py calls it in threads.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import node_agent.container.sdk  # noqa: F401 -- before what it prepares

# isort: split

import docker
import docker.auth
import docker.errors
import requests
import urllib3.exceptions

from hmcore.digests import is_digest
from hmcore.errors import HyperMeshError, ImageUnavailable, LayerDown, NoSpace, RegistryDenied, RegistrySilent
from node_agent.container.engine import FIX, knock
from node_agent.container.local_images import LocalImage, image_of, images_of, keeps_in_containerd
from node_agent.container.refusals import refusal, unanswered, wants_login

SILENCE = 120.0  # seconds in which Docker says nothing about an image that it loads or pulls
KNOCK = 5.0


class DockerImages:
    """Every call blocks, the silence in it for SILENCE seconds at most, and raises LayerDown when Docker does not answer, NoSpace when its
    disk is full, and ImageUnavailable when it refuses for another reason."""

    def __init__(self, socket: Path, timeout: float) -> None:
        self._socket = socket
        try:
            knock(socket, timeout)
            self._client: Any = docker.APIClient(base_url=f"unix://{socket}", version="auto", timeout=SILENCE, max_pool_size=4)
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise LayerDown(f"Docker does not answer on {socket}", fix=FIX) from error

    def close(self) -> None:
        self._client.close()

    def skips_layers(self) -> bool:
        """Whether an archive may leave out layers that it has: not so where containerd keeps the images."""
        return not keeps_in_containerd(self._ask(self._client.info))

    def images(self) -> list[LocalImage]:
        """All images: their ids and names. Layers are told by `find`."""
        return images_of(self._ask(self._client.images))

    def find(self, name: str) -> LocalImage | None:
        """The image of this name or id, with its layers; None: there is none."""

        def inspect() -> Any:
            try:
                return self._client.inspect_image(name)
            except docker.errors.NotFound:
                return None

        return image_of(self._ask(inspect))

    def remove(self, name: str) -> None:
        """`docker rmi`; what is not there needs none. Raises ImageUnavailable while a container uses it."""

        def remove() -> None:
            try:
                self._client.remove_image(name)
            except docker.errors.NotFound:
                return

        self._ask(remove)

    def manifest(self, repository: str, tag: str, credentials: tuple[str, str] | None) -> str:
        """The digest of the manifest that the registry has under the tag. Raises RegistrySilent, too, when that gives no answer."""
        login = {"username": credentials[0], "password": credentials[1]} if credentials else None
        said = self._ask(lambda: self._client.inspect_distribution(f"{repository}:{tag}", auth_config=login), _of_registry)
        found = said.get("Descriptor", {}).get("digest") if isinstance(said, dict) else None
        if not isinstance(found, str) or not is_digest(found):
            raise ImageUnavailable(f"the registry does not say what {repository}:{tag} is")
        return found

    def room(self) -> int | None:
        """Bytes that are free on Docker's disk; None: nobody can tell."""
        said = self._ask(self._client.info)
        root = said.get("DockerRootDir") if isinstance(said, dict) else None
        try:
            return shutil.disk_usage(root).free if isinstance(root, str) else None
        except (OSError, ValueError):
            return None

    def load(self, archive: Iterator[bytes]) -> None:
        """`docker load`. An exception that `archive` raises comes out as it is. Docker tells how far it is, so that it is never silent."""
        failed: list[Exception] = []

        def pieces() -> Iterator[bytes]:
            try:
                yield from archive
            except Exception as error:
                failed.append(error)
                raise

        def load() -> None:
            for said in self._client.load_image(pieces(), quiet=False) or ():
                _refuse(said)

        try:
            self._ask(load)
        except LayerDown:
            if failed:
                raise failed[0] from None
            self._ask(self._client.ping)  # else it is down
            raise ImageUnavailable(
                "Docker broke off while it was loading, or said nothing for too long", fix="journalctl -u docker"
            ) from None

    def pull(self, repository: str, tag: str, credentials: tuple[str, str] | None, progress: Callable[[object], bool]) -> None:
        """`docker pull`. `tag` may be a digest. `progress` gets each line that Docker says, and gives False to stop."""
        header = docker.auth.encode_header({"username": credentials[0], "password": credentials[1]}) if credentials else None

        def pull() -> None:
            answer = self._client._post(  # as the SDK's pull does it, which would wait for ever when nothing comes any more
                self._client._url("/images/create"),
                params={"fromImage": repository, "tag": tag},
                headers={"X-Registry-Auth": header} if header else {},
                stream=True,
                timeout=SILENCE,
            )
            try:
                self._client._raise_for_status(answer)
                for said in self._client._stream_helper(answer, decode=True):
                    _refuse(said)
                    if not progress(said):
                        return
            finally:
                answer.close()

        self._ask(pull)

    def _ask(self, question: Callable[[], Any], refused: Callable[[int, str], HyperMeshError] | None = None) -> Any:
        """`refused`: what a refusal means, by its status and words."""
        try:
            knock(self._socket, KNOCK)
            return question()
        except docker.errors.APIError as error:
            raise (refused or _refusal)(error.status_code or 0, str(error.explanation or error)) from error
        # a stream is read raw by the SDK, which lets all of these through
        except (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise LayerDown(f"Docker does not answer on {self._socket}", fix=FIX) from error


def _refuse(said: object) -> None:
    """Docker answers 200 and says in the stream that it failed."""
    if isinstance(said, dict) and (error := said.get("error")):
        raise _refusal(0, str(error))


def _refusal(status: int, said: str) -> ImageUnavailable | NoSpace:
    refused = refusal(status, said)
    if isinstance(refused, NoSpace):
        return refused
    return (RegistryDenied if wants_login(said) else ImageUnavailable)(f"Docker refuses: {refused.message}")


def _of_registry(status: int, said: str) -> HyperMeshError:
    """Where Docker was asked about a registry, and of itself there is nothing to refuse."""
    if unanswered(status, said):
        return RegistrySilent(f"Docker says: {refusal(status, said).message}")
    return _refusal(status, said)
