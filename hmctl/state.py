"""What the operator keeps of a cluster, in `$XDG_DATA_HOME/hypermesh/<cluster id>/`: readable by its owner alone.

    ca.pem, ca.key             the cluster's certificate authority; ca.pem is written last, so it is there or it is not
    operator.pem, operator.key this operator's own certificate
    cluster.json               the bootstrap id, the voters that were asked to form the cluster, and when it was formed
    known_hosts                SSH host keys that were accepted on first contact

Nothing here ever makes a second CA or a second bootstrap id for a cluster: either would split it (design section 4).
"""

from __future__ import annotations

import getpass
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

import msgspec

from hmcore import pki
from hmcore.errors import FormationFailed, HyperMeshError, PkiError, UsageError
from hmctl import files, lock
from hmctl.text import listed

FORMAT = "hypermesh-authority/1"
OTHER_VOTERS_FIX = "list these as role: control, and others as role: worker; or give the cluster up: list them, then hmctl reset"

_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Place(msgspec.Struct, frozen=True, order=True):
    """A control node, and where the others reach it."""

    name: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.name} ({self.address}:{self.port})"


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """cluster.json. `voters`: who may form the cluster, kept before the first of them is told, and later who votes in it, as far as we saw;
    None: nobody was ever told."""

    cluster: str
    bootstrap: str | None = None
    voters: tuple[Place, ...] | None = None
    formed_at: datetime | None = None


class Exported(msgspec.Struct, frozen=True, kw_only=True, tag_field="format", tag=FORMAT):
    """What `hmctl ca export` writes: all that another machine needs to operate the cluster."""

    cluster: str
    certificate: str
    key: str
    bootstrap: str | None
    voters: tuple[Place, ...] | None = None
    formed_at: datetime | None
    known_hosts: str


class OperatorStore(msgspec.Struct, frozen=True):
    """The folder of one cluster. Opening it touches nothing; it is made when there is something to keep."""

    folder: Path
    cluster: str

    @classmethod
    def open(cls, cluster: str, root: Path | None = None) -> OperatorStore:
        """The store of the cluster with the id `cluster`, below `root` (by default the operator's data folder)."""
        if not _ID.fullmatch(cluster):
            raise UsageError(f"{cluster!r} is no cluster id")
        return cls((data_folder() if root is None else root) / cluster, cluster)

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def lock(self, doing: str) -> AbstractContextManager[None]:
        """For a command that changes the cluster: raises HyperMeshError, naming the holder, while another one does."""
        files.private_folder(self.folder)
        return lock.held(self.folder / "command.lock", doing)

    # The certificate authority

    def has_authority(self) -> bool:
        """Whether we can issue certificates. False is no licence to make a CA: the cluster may exist, with its CA elsewhere."""
        return (self.folder / "ca.pem").exists() and (self.folder / "ca.key").exists()

    def ca_certificate(self) -> bytes:
        """The CA's certificate (PEM): enough to verify. Raises PkiError when it is not here."""
        try:
            return (self.folder / "ca.pem").read_bytes()
        except FileNotFoundError:
            raise self._absent() from None

    def authority(self) -> pki.KeyPair:
        """The CA. Raises PkiError when it is not here, or is not whole."""
        certificate = self.ca_certificate()
        if not (self.folder / "ca.key").exists():
            raise self._absent()
        key = _read_private(self.folder / "ca.key")
        _check_authority(certificate, key, self.cluster)
        return pki.KeyPair(certificate, key)

    def create_authority(self, now: datetime) -> pki.KeyPair:
        """A CA for a cluster that is not yet formed anywhere: that is for the caller to know. Raises UsageError if there is one."""
        made = pki.create_authority(self.cluster, now)
        with self._writing():
            if (self.folder / "ca.pem").exists():
                raise UsageError(f"there is a CA for {self.cluster} already: {self.folder / 'ca.pem'}")
            self._write_authority(made)
        return made

    def operator_credentials(self, now: datetime) -> pki.KeyPair:
        """This operator's certificate and key, issued when there is none that is good and renewed in time. Raises PkiError.

        Without the CA's key a certificate that is still valid serves as it is.
        """
        authority = self.ca_certificate()
        present = self._operator(authority, now)
        if present is not None and not (pki.needs_renewal(present.certificate, now) and self.has_authority()):
            return present
        identity = pki.Identity(self.cluster, pki.Kind.OPERATOR, operator_name())
        issued = pki.issue(self.authority(), identity, now)
        with self._writing():  # the certificate last: a pair that does not match is issued anew
            files.write(self.folder / "operator.key", issued.key)
            files.write(self.folder / "operator.pem", issued.certificate)
        return issued

    # Formation

    def bootstrap(self) -> str:
        """The id of the one occasion at which the initial voters may form this cluster. Made once, then always the same."""
        with self._writing():
            record = self._record()
            if record.bootstrap is None:
                record = msgspec.structs.replace(record, bootstrap=secrets.token_hex(16))
                self._write_record(record)
        assert record.bootstrap is not None
        return record.bootstrap

    @property
    def known_bootstrap(self) -> str | None:
        """The bootstrap id if one was made: for showing, which must not make one."""
        return self._record().bootstrap

    @property
    def voters(self) -> tuple[Place, ...] | None:
        """Who was asked to form the cluster, whether it was ever confirmed or not. None: nobody."""
        return self._record().voters

    def begin_formation(self, voters: Iterable[Place]) -> None:
        """On disk when it returns: these may form the cluster. Raises FormationFailed if others were asked before."""
        wanted = tuple(sorted(voters))
        with self._writing():
            record = self._record()
            if record.voters is None:
                self._write_record(msgspec.structs.replace(record, voters=wanted))
            elif record.voters != wanted:
                raise FormationFailed(f"{other_voters(record.voters)}; nothing was formed", fix=OTHER_VOTERS_FIX)

    def keep_voters(self, voters: Iterable[Place]) -> None:
        """On disk when it returns: these vote, or may be about to, in the cluster that was formed. For a reset, which must know where the
        cluster may live on."""
        wanted = tuple(sorted(voters))
        with self._writing():
            record = self._record()
            if record.formed_at is not None and record.voters != wanted:
                self._write_record(msgspec.structs.replace(record, voters=wanted))

    @property
    def formed_at(self) -> datetime | None:
        """When the cluster was formed, as far as this operator saw. Once set, hmctl never again asks nodes to form it."""
        return self._record().formed_at

    def mark_formed(self, now: datetime) -> None:
        with self._writing():
            record = self._record()
            if record.formed_at is None:
                self._write_record(msgspec.structs.replace(record, formed_at=now))

    def forget_formation(self) -> None:
        """After every control node was reset: the next deploy forms the cluster anew, under another bootstrap id. The CA stays."""
        with self._writing():
            self._write_record(msgspec.structs.replace(self._record(), bootstrap=None, voters=None, formed_at=None))

    # To another machine

    def export(self, path: Path) -> None:
        """All of it but this operator's own certificate, as one file. Raises UsageError if `path` exists or cannot be written."""
        authority, record = self.authority(), self._record()
        document = Exported(
            cluster=self.cluster,
            certificate=authority.certificate.decode(),
            key=authority.key.decode(),
            bootstrap=record.bootstrap,
            voters=record.voters,
            formed_at=record.formed_at,
            known_hosts=self.known_hosts.read_text() if self.known_hosts.exists() else "",
        )
        try:
            files.create(path, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
        except UsageError as error:
            raise UsageError(f"{error.message}; nothing was written", fix="name a file that is not there yet") from None
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}", fix="name a file in a folder where you may write") from None

    @classmethod
    def import_(cls, path: Path, root: Path | None = None) -> OperatorStore:
        """Take over what `export` wrote. Again is harmless. Raises PkiError if another CA is here, UsageError if it is no export."""
        try:
            exported = msgspec.json.decode(path.read_bytes(), type=Exported)
        except OSError as error:
            fix = "name the file that `hmctl ca export` wrote"
            raise UsageError(f"{path} cannot be read: {error.strerror}", fix=fix) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            fix = "name the file that it wrote; where the cluster was made: hmctl ca export FILE"
            raise UsageError(f"{path} was not written by `hmctl ca export`: {error}", fix=fix) from None
        certificate, key = exported.certificate.encode(), exported.key.encode()
        store = cls.open(exported.cluster, root)
        _check_authority(certificate, key, store.cluster)
        with store._writing():
            present = store.folder / "ca.pem"
            if present.exists() and pki.fingerprint(present.read_bytes()) != pki.fingerprint(certificate):
                message = f"another CA for {store.cluster} is here already, in {store.folder}; nothing was imported"
                raise PkiError(message, fix="find out which one the nodes trust; move that folder away only if it is not this one's")
            record = _merged(store._record(), exported)  # before anything is written: it may refuse
            store._write_authority(pki.KeyPair(certificate, key))
            store._write_record(record)
            store._add_known_hosts(exported.known_hosts)
        return store

    # Within

    def _writing(self) -> AbstractContextManager[None]:
        files.private_folder(self.folder)
        return lock.held(self.folder / "write.lock", "at this moment", timeout=10.0)

    def _write_authority(self, authority: pki.KeyPair) -> None:
        files.write(self.folder / "ca.key", authority.key)
        files.write(self.folder / "ca.pem", authority.certificate)

    def _record(self) -> Record:
        path = self.folder / "cluster.json"
        try:
            record = msgspec.json.decode(path.read_bytes(), type=Record)
        except FileNotFoundError:
            return Record(cluster=self.cluster)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # starting afresh could form a second cluster
            fix = "restore it from a backup, or `hmctl ca import` what was exported"
            raise HyperMeshError(f"{path} is damaged: {error}", fix=fix) from error
        if record.cluster != self.cluster:
            raise HyperMeshError(f"{path} belongs to {record.cluster}, not to {self.cluster}")
        return record

    def _write_record(self, record: Record) -> None:
        files.write(self.folder / "cluster.json", msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")

    def _operator(self, authority: bytes, now: datetime) -> pki.KeyPair | None:
        """The operator's pair, if it is whole and the CA vouches for it."""
        certificate, key = self.folder / "operator.pem", self.folder / "operator.key"
        if not (certificate.exists() and key.exists()):
            return None
        pair = pki.KeyPair(certificate.read_bytes(), _read_private(key))
        try:
            pki.verify(pair.certificate, authority, now, cluster=self.cluster, serving=False)
            matches = pki.public_key(pair.certificate) == pki.public_key(pair.key)
        except PkiError:
            return None
        return pair if matches else None

    def _add_known_hosts(self, text: str) -> None:
        present = self.known_hosts.read_text().splitlines() if self.known_hosts.exists() else []
        lines = list(dict.fromkeys([*present, *text.splitlines()]))
        if lines != present:
            files.write(self.known_hosts, "".join(f"{line}\n" for line in lines).encode())

    def _absent(self) -> PkiError:
        fix = "the first `hmctl deploy` makes it; if the cluster exists: hmctl ca export FILE where it was made, hmctl ca import FILE here"
        return PkiError(f"the CA of {self.cluster} is not on this machine ({self.folder})", fix=fix)


def other_voters(voters: Iterable[Place]) -> str:
    """Why an inventory with other control nodes will not do."""
    return f"the control nodes {listed(list(map(str, voters)))} were asked to form this cluster, and these cannot be changed any more"


def data_folder() -> Path:
    """`$XDG_DATA_HOME/hypermesh` (XDG Base Directory Specification: a relative value is ignored)."""
    given = os.environ.get("XDG_DATA_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".local" / "share") / "hypermesh"


def operator_name() -> str:
    """Whom the agents' records will name: the login name, as a DNS label."""
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # no such user in a bare container
        name = ""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-") or "operator"


def _merged(here: Record, there: Exported) -> Record:
    """One record of two. Formed beats not formed; two formations of one cluster are a contradiction that nobody here can settle."""
    bootstrap, voters = there.bootstrap if there.bootstrap is not None else here.bootstrap, there.voters or here.voters
    if here.bootstrap is not None and there.bootstrap not in (None, here.bootstrap):
        begun_here, begun_there = bool(here.formed_at or here.voters), bool(there.formed_at or there.voters)
        if begun_here and begun_there:
            raise HyperMeshError(
                f"{here.cluster} was formed twice, here ({here.formed_at}) and there ({there.formed_at}); nothing was imported"
            )
        kept = here if begun_here else there
        bootstrap, voters = kept.bootstrap, kept.voters
    elif here.voters and there.voters and here.voters != there.voters:
        lists = f"here {listed(list(map(str, here.voters)))}, there {listed(list(map(str, there.voters)))}"
        raise HyperMeshError(f"{here.cluster} was begun with two lists of control nodes, {lists}; nothing was imported")
    return Record(cluster=here.cluster, bootstrap=bootstrap, voters=voters, formed_at=here.formed_at or there.formed_at)


def _read_private(path: Path) -> bytes:
    if path.stat().st_mode & 0o077:
        raise PkiError(f"others can read the private key {path}", fix=f"chmod 600 {path}; and ask yourself who did")
    return path.read_bytes()


def _check_authority(certificate: bytes, key: bytes, cluster: str) -> None:
    if pki.public_key(certificate) != pki.public_key(key):
        raise PkiError(f"the CA's certificate and key of {cluster} do not belong together")
    if (named := pki.read_authority(certificate)) != cluster:
        raise PkiError(f"this CA belongs to cluster {named}, not to {cluster}")
