"""Compiles our programs and puts them into the kernel: a process of its own, run by the system's Python, with bcc, for half a second.

Request (JSON on stdin): node, cgroup (path of the parent), mode, digest (hex), programs (directory), root (of the pins). Answer (JSON on
stdout): either {"ok": true, ...}, or {"missing"|"down": why, "fix": command}.

It may be killed at any moment. Until everything is compiled and verified, nothing that works is touched. Then each cgroup link gets its new
program in one step, and nothing is ever detached before its successor works. What a killed one left is made good by the next.

A tracepoint's link cannot change its program. What is attached there does nothing but go on with the program that the map `acting` holds:
it is never replaced, and writing that one entry is the switch.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import json
import os
import re
import struct
import sys
import tempfile
from typing import Any

# Run by path, isolated (-I): our own release is found from where this file lies, behind everything that the system has.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from node_agent.security import kernel, maps
from node_agent.security.kernel import Bpf, KernelRefused

HEADERS_FIX = "hmctl deploy"  # it knows what the package is called that fits
TRACEPOINT = "events/sched/sched_process_exec/id"
TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_SAID = 600  # characters of the compiler's or verifier's words that are handed on


class Refused(Exception):
    """What is missing, or does not work; and what mends it."""

    def __init__(self, kind: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.answer = {kind: message, "fix": fix}


def main() -> int:
    try:
        answer = load(json.load(sys.stdin))
    except Refused as error:
        answer = error.answer
    except KernelRefused as error:
        answer = {"down": f"the kernel refused: {error.strerror}", "fix": fix_for(error.errno or 0)}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0 if answer.get("ok") else 1


def load(request: dict[str, Any]) -> dict[str, Any]:
    """Everything, in the order that makes it safe. Raises Refused or KernelRefused."""
    bpf = Bpf()
    directory = maps.pins(request["node"], request["root"])
    tracepoint = find_tracepoint()
    os.makedirs(directory, mode=0o700, exist_ok=True)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # until we end: two at once would take each other's new links for leftovers
    fds, new = make_maps(bpf, directory)
    old = maps.parse_cfg(bpf.lookup(fds["cfg"], bytes(4), maps.CFG.size))
    programs = build(request["programs"], fds)
    # From here on: pins and attachments. Everything above may fail without a trace.
    begins = maps.link_name(maps.TRACEPOINT_PROGRAM)
    if "acting" in new:  # the kernel has emptied the one that the link goes by, when the last of its pins was removed
        remove(directory, [begins])
    for name in new:
        pin(bpf, fds[name], f"{directory}/{name}")
    parent = os.stat(request["cgroup"]).st_ino
    cpus = os.cpu_count() or 1
    cfg = maps.Cfg(parent, 0, maps.MODES[request["mode"]], max(1, maps.RATE // cpus), max(1, maps.BURST // cpus), bytes(32))
    if old.parent != parent:  # the programs that run now count nothing below another parent, whichever order this is done in
        bpf.update(fds["cfg"], bytes(4), cfg.encode())
    cgroup = os.open(request["cgroup"], os.O_RDONLY | os.O_DIRECTORY)
    for hook in maps.HOOKS:
        attach(bpf, f"{directory}/{maps.link_name(hook.program)}", programs[hook.program], cgroup, hook.attach, parent)
    bpf.update(fds["acting"], bytes(4), programs[maps.EXEC_PROGRAM].to_bytes(4, "little"))
    if begins not in os.listdir(directory):
        pin(bpf, bpf.link(programs[maps.TRACEPOINT_PROGRAM], bpf.tracepoint(tracepoint), kernel.PERF_EVENT), f"{directory}/{begins}")
    bpf.update(fds["cfg"], bytes(4), cfg.encode())
    remove(directory, maps.strays(os.listdir(directory)))
    remove_other_layouts(os.path.dirname(directory), os.path.basename(directory))
    # With the digest last, that all of this need not be done again: nothing else tells the agent what another layout has left.
    bpf.update(fds["cfg"], bytes(4), maps.Cfg(**{**vars(cfg), "digest": bytes.fromhex(request["digest"])}).encode())
    return {"ok": True}


# --- maps


def make_maps(bpf: Bpf, directory: str) -> tuple[dict[str, int], list[str]]:
    """Descriptors by name: of the pinned ones that fit, else of new ones; and which are new. Nothing is pinned yet, nor unpinned."""
    fds, new = {}, []
    for spec in maps.specs(maps.possible_cpus()):
        fd = fitting(bpf, spec, f"{directory}/{spec.name}")
        if fd is None:
            new.append(spec.name)
            btf = (bpf.load_btf(maps.owners_btf()), 1, 2) if spec.kind == kernel.SK_STORAGE else (0, 0, 0)
            fd = bpf.create_map(spec.kind, spec.key, spec.value, spec.entries, f"hm_{spec.name}", spec.flags, btf)
        fds[spec.name] = fd
    return fds, new


def fitting(bpf: Bpf, spec: maps.MapSpec, path: str) -> int | None:
    """The map that is pinned there, if it is as it should be."""
    with contextlib.suppress(KernelRefused):
        fd = bpf.get(path)
        kind, _, key, value, entries = _FIVE.unpack(bpf.info(fd, _FIVE.size))
        if (kind, key, value, entries) == (spec.kind, spec.key, spec.value, spec.entries):
            return fd
        os.close(fd)
    return None


_FIVE = struct.Struct("<IIIII")


# --- programs


def build(directory: str, fds: dict[str, int]) -> dict[str, int]:
    """Descriptors of the compiled, loaded and verified programs, by name."""
    try:
        import bcc  # noqa: PLC0415 -- its absence is an answer, not a crash
    except ImportError as error:
        raise Refused("missing", f"the system's Python cannot load bcc: {error}", "hmctl deploy") from error
    flags = [f"-DHM_{name.upper()}_FD={fd}" for name, fd in fds.items()]
    flags += ["-Wno-macro-redefined", *header_flags()]
    kinds = {hook.program: bcc.BPF.CGROUP_SKB for hook in maps.HOOKS}
    kinds.update({"hm_tcp": bcc.BPF.SOCK_OPS, maps.TRACEPOINT_PROGRAM: bcc.BPF.TRACEPOINT, maps.EXEC_PROGRAM: bcc.BPF.TRACEPOINT})
    with words() as said:
        try:
            module = bcc.BPF(text=maps.sources(directory).encode(), cflags=flags)
            # Kept: the descriptors close with the module.
            programs = {name: os.dup(module.load_func(name.encode(), kind).fd) for name, kind in kinds.items()}
        except Exception as error:
            message = f"the kernel or compiler refused our programs: {last(said(), str(error))}"
            raise Refused("down", message, "journalctl -u hypermesh-agent; hypermesh's release and this kernel do not fit") from error
    return programs


def header_flags() -> list[str]:
    """What the compiler needs beyond its own search: nothing where the running kernel's headers are. Else the newest that are installed."""
    release = os.uname().release
    if os.path.exists(f"/lib/modules/{release}/build") or os.path.exists("/sys/kernel/kheaders.tar.xz"):
        return []
    found = newest_headers(glob.glob("/usr/src/linux-headers-*"))
    if found is None:
        raise Refused("missing", f"there are no headers of any kernel (this one is {release})", HEADERS_FIX)
    machine = {"x86_64": "x86", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    # Debian keeps what all flavours share in a directory of its own.
    common = re.sub(r"-[^-]+$", "-common", found)
    os.environ["BCC_KERNEL_SOURCE"] = common if os.path.isdir(common) else found
    inside = ("include", "include/generated/uapi", f"arch/{machine}/include/generated", f"arch/{machine}/include/generated/uapi")
    return [f"-I{found}/{part}" for part in inside]


def newest_headers(paths: list[str]) -> str | None:
    """The newest directory that is complete for one flavour, by version; `common` ones are only half of it."""
    numbered = [(tuple(int(n) for n in re.findall(r"\d+", os.path.basename(path))), path) for path in paths if not path.endswith("-common")]
    flavours = [entry for entry in numbered if re.search(r"-[a-z][a-z0-9_+-]*$", entry[1].partition("linux-headers-")[2])]
    return max(flavours)[1] if flavours else None


@contextlib.contextmanager
def words() -> Any:
    """Catches what bcc's compiler and the verifier write to descriptor 2. Yields a function that returns it."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)

        def said() -> str:
            file.seek(0)
            return file.read().decode("utf-8", "replace")

        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def last(said: str, otherwise: str) -> str:
    """The lines that matter: errors of the compiler, or else the end of what the verifier said."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("processed ")]
    errors = [line for line in lines if "error:" in line]
    return " | ".join(errors[:3] or lines[-3:] or [otherwise])[-_SAID:]


# --- attachments


def attach(bpf: Bpf, path: str, program: int, cgroup: int, kind: int, parent: int) -> None:
    """The program at the cgroup's hook, through the link pinned at `path`: there the old program is replaced in one step."""
    try:
        link = bpf.get(path)
    except KernelRefused as error:
        if error.errno != errno.ENOENT:
            raise
    else:
        if kernel.parse_link_info(bpf.info(link, 80)).cgroup == parent:
            bpf.relink(link, program)
            return
    pin(bpf, bpf.link(program, cgroup, kind), path)


def pin(bpf: Bpf, fd: int, path: str) -> None:
    """Pin it, in the place of what was pinned there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    bpf.pin(fd, path)


def find_tracepoint() -> int:
    for root in TRACEFS:
        with contextlib.suppress(OSError), open(f"{root}/{TRACEPOINT}") as file:
            return int(file.read())
    raise Refused(
        "missing", "the kernel's tracepoints are not to be seen: tracefs is not mounted", "mount -t tracefs tracefs /sys/kernel/tracing"
    )


def remove(directory: str, names: Any) -> None:
    for name in list(names):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{name}")


def remove_other_layouts(node: str, ours: str) -> None:
    for name in os.listdir(node):
        if name != ours:
            remove(f"{node}/{name}", os.listdir(f"{node}/{name}"))
            os.rmdir(f"{node}/{name}")


def fix_for(number: int) -> str:
    if number in (errno.EPERM, errno.EACCES):
        return "the agent must be root, and the kernel not locked down: cat /sys/kernel/security/lockdown"
    if number == errno.ENOSYS:
        return "boot a kernel with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF"
    return "journalctl -k"


if __name__ == "__main__":
    raise SystemExit(main())
