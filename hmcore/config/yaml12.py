"""YAML 1.2 (core schema) into plain values, with the line of every part. The other way: yaml_writing.py.

PyYAML resolves scalars as YAML 1.1 does (`22:22` is 1342, `on` is true) and builds whatever a tag asks for. Here its parser only supplies
events; what they mean is decided here, within bounds, so that any input gives a value or a ConfigError: no recursion to exhaust,
no alias to multiply, no tag to obey (scalars.py says what they mean); `<<` merges as in YAML 1.1, because people use it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import msgspec
import yaml

from hmcore.config.problems import Path, spell
from hmcore.config.scalars import scalar
from hmcore.errors import ConfigError, Problem

Value = Any  # None | bool | int | float | str | list[Value] | dict[str, Value]

MAX_BYTES = 4_194_304
MAX_PARTS = 200_000  # values in a document, counting an alias as what it stands for
MAX_DEPTH = 64
MAX_DOCUMENTS = 100  # in one file, where several are read

TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = {"null": type(None), "bool": bool, "int": int, "float": int | float, "str": str}


class Located(msgspec.Struct, frozen=True):
    """A document: its value, the line of each part by path, and what is wrong with it although it could be read (repeated keys).
    `tags`: of the parts that carry one of those that the reader asked for."""

    value: Value
    file: str
    lines: Mapping[Path, int]
    problems: tuple[Problem, ...] = ()
    tags: Mapping[Path, str] = {}


class _Node(msgspec.Struct):
    """A part of the document as written. Shared by its aliases, never by itself: an anchor counts only once its part has ended."""

    line: int
    text: str = ""  # of a scalar
    value: Value = None  # of a scalar
    items: list[_Node] | None = None
    entries: dict[str, tuple[int, _Node]] | None = None  # with the line of each key
    merged: list[_Node] = msgspec.field(default_factory=list)  # what `<<` names; the first wins
    repeats: list[tuple[str, int, int]] = msgspec.field(default_factory=list)  # key, its line, the first one's line
    merge_line: int = 0  # of its `<<`
    is_merge_key: bool = False
    tag: str = ""
    size: int = 1
    depth: int = 1


class _Frame(msgspec.Struct):
    """A list or mapping that has not ended yet."""

    node: _Node
    anchor: str | None
    key: _Node | None = None


class _Dialect(msgspec.Struct, frozen=True):
    """What a reader wants otherwise than YAML 1.2 has it: tags that it understands, and what an unquoted scalar means."""

    tags: Collection[str]
    scalar: Callable[[str], Value]


class _Invalid(Exception):
    def __init__(self, line: int | None, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.line, self.message, self.hint = line, message, hint


def load(text: str | bytes, file: str) -> Located:
    """The one document in `text`. Raises ConfigError if it cannot be read or repeats a key. `file` is only named in problems."""
    document = parse(text, file)
    if document.problems:
        raise ConfigError(document.problems)
    return document


def parse(text: str | bytes, file: str, *, tags: Collection[str] = (), scalar: Callable[[str], Value] = scalar) -> Located:
    """Like `load`, but repeated keys are left in `problems`, to be reported together with whatever else is wrong; the last one counts.

    `tags` (`!reset`) are no mistakes, but told. `scalar`: what an unquoted scalar without a tag means; it must give a value, never raise.
    """
    try:
        roots = _read(_decode(text), _Dialect(tags, scalar), most=1)
    except _Invalid as error:
        raise ConfigError((Problem(file, error.line, "", error.message, error.hint),)) from None
    return _built(roots[0] if roots else _Node(1), file)


def parse_all(text: str | bytes, file: str, *, tags: Collection[str] = (), scalar: Callable[[str], Value] = scalar) -> tuple[Located, ...]:
    """Like `parse`, of every document in `text`, at most MAX_DOCUMENTS; none: there is nothing. Anchors are known in what follows them,
    also in other documents, as Docker Compose's reader has it."""
    try:
        roots = _read(_decode(text), _Dialect(tags, scalar), most=MAX_DOCUMENTS)
    except _Invalid as error:
        raise ConfigError((Problem(file, error.line, "", error.message, error.hint),)) from None
    return tuple(_built(root, file) for root in roots)


def _built(root: _Node, file: str) -> Located:
    lines: dict[Path, int] = {}
    tagged: dict[Path, str] = {}
    repeats: dict[tuple[str, int], Problem] = {}

    def build(node: _Node, path: Path) -> Value:
        lines.setdefault(path, node.line)
        if node.tag:
            tagged[path] = node.tag
        for key, line, first in node.repeats:
            message = "this key is given twice"
            repeats.setdefault((key, line), Problem(file, line, spell((*path, key)), message, f"the first is in line {first}"))
        if node.items is not None:
            return [build(item, (*path, index)) for index, item in enumerate(node.items)]
        if node.entries is None:
            return node.value
        built: dict[str, Value] = {}
        for key, (line, child) in _entries(node):
            lines[(*path, key)] = line
            built[key] = build(child, (*path, key))
        return built

    value = build(root, ())
    return Located(value, file, lines, tuple(repeats.values()), tagged)


def _entries(node: _Node) -> Iterator[tuple[str, tuple[int, _Node]]]:
    """A mapping's entries with those of what it merges, its own first."""
    seen = set(node.entries or ())
    yield from (node.entries or {}).items()
    for other in node.merged:
        for key, entry in _entries(other):
            if key not in seen:
                seen.add(key)
                yield key, entry


def _decode(text: str | bytes) -> str:
    if len(text) > MAX_BYTES:
        raise _Invalid(None, f"the document is larger than {MAX_BYTES // 2**20} MiB")
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Invalid(text[: error.start].count(b"\n") + 1, "the document is not UTF-8 text") from None


def _read(text: str, dialect: _Dialect, *, most: int) -> list[_Node]:
    """The documents in `text`, at most `most` of them, and MAX_PARTS parts in all. Raises _Invalid, whatever `text` is."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same events from libyaml, ten times faster
    stack: list[_Frame] = []
    anchors: dict[str, _Node] = {}
    root: _Node | None = None
    roots: list[_Node] = []
    try:
        for event in yaml.parse(text, Loader=loader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            anchor = getattr(event, "anchor", None)
            match event:
                case yaml.DocumentStartEvent():
                    if len(roots) == most:
                        what = "a second document begins here" if most == 1 else f"more than {most} documents"
                        raise _Invalid(line, what, "one file holds one document" if most == 1 else None)
                case yaml.DocumentEndEvent() if root is not None:
                    roots.append(root)
                    if sum(each.size for each in roots) > MAX_PARTS:
                        raise _Invalid(root.line, f"the documents have more than {MAX_PARTS} parts once their aliases are resolved")
                case yaml.ScalarEvent():
                    root = _ended(_scalar_node(event, line, dialect), anchor, stack, anchors)
                case yaml.AliasEvent():
                    if anchor not in anchors:
                        raise _Invalid(line, f"*{anchor} refers to nothing above", "&NAME gives a part a name")
                    root = _ended(anchors[anchor], None, stack, anchors)
                case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                    stack.append(_Frame(_collection_node(event, line, dialect), anchor))
                    if len(stack) > MAX_DEPTH:
                        raise _Invalid(line, f"nested deeper than {MAX_DEPTH} levels")
                case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                    frame = stack.pop()
                    root = _ended(frame.node, frame.anchor, stack, anchors)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text) from None
    except yaml.reader.ReaderError as error:
        raise _Invalid(text[: error.position].count("\n") + 1, "a character that YAML does not allow") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # escapes and directives that the parser itself cannot represent
        raise _Invalid(None, f"cannot be read as YAML: {error}") from None
    return roots


def _syntax_error(error: yaml.MarkedYAMLError, text: str) -> _Invalid:
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines() or [""]
    line = min(mark.line + 1, len(lines)) if mark else None  # what the end of the text cuts short is said of its last line
    said = error.problem or error.context or "cannot be read"
    if error.problem and error.context and error.context_mark and error.context_mark.line + 1 != line:
        said += f" {error.context} that begins in line {error.context_mark.line + 1}"
    written = lines[line - 1] if line else ""
    hint = None
    if "\t" in written[: len(written) - len(written.lstrip())] or ("cannot start any token" in said and "\t" in written):
        hint = "indent with spaces: YAML forbids tabs"
    elif "mapping values are not allowed" in said:
        hint = 'text that contains ": " needs quotes; or the indentation is off'
    elif "cannot start any token" in said:
        hint = "text that begins with @, ` or % needs quotes"
    return _Invalid(line, f"not YAML: {said}", hint)


def _scalar_node(event: yaml.ScalarEvent, line: int, dialect: _Dialect) -> _Node:
    text: str = event.value
    tag: str | None = event.tag
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _Invalid(line, "text with half a surrogate pair", r"write \U and eight digits for characters beyond \uFFFF") from None
    if tag is None:
        plain = bool(event.implicit[0])
        return _Node(line, text, dialect.scalar(text) if plain else text, is_merge_key=plain and text == "<<")
    if tag in dialect.tags:
        return _Node(line, text, text if event.style in ("'", '"', "|", ">") else dialect.scalar(text), tag=tag)
    name = tag.removeprefix(TAG)
    if tag == "!" or name == "str":
        return _Node(line, text, text)
    if name not in _SCALAR_TAGS:
        raise _Invalid(line, f"the tag {tag} means nothing here", "no tag is needed")
    value = scalar(text)
    if not isinstance(value, _SCALAR_TAGS[name]) or (isinstance(value, bool) and name != "bool"):
        raise _Invalid(line, f"{text[:40]!r} is no {name}")
    return _Node(line, text, float(value) if name == "float" and value is not None else value)


def _collection_node(event: yaml.SequenceStartEvent | yaml.MappingStartEvent, line: int, dialect: _Dialect) -> _Node:
    wants = "seq" if isinstance(event, yaml.SequenceStartEvent) else "map"
    tag = event.tag if event.tag and event.tag in dialect.tags else ""
    if not tag and event.tag not in (None, "!", TAG + wants):
        raise _Invalid(line, f"the tag {event.tag} means nothing here", "no tag is needed")
    return _Node(line, items=[], tag=tag) if wants == "seq" else _Node(line, entries={}, tag=tag)


def _ended(node: _Node, anchor: str | None, stack: list[_Frame], anchors: dict[str, _Node]) -> _Node:
    """Give a part that has ended to the one that holds it, which is still open. Returns `node`: the last one returned is the root."""
    if anchor is not None:
        anchors[anchor] = node
    if not stack:
        return node
    frame = stack[-1]
    owner = frame.node
    if owner.items is not None:
        owner.items.append(node)
        _grow(owner, node)
    elif frame.key is None:
        if node.items is not None or node.entries is not None:
            raise _Invalid(node.line, "a key must be plain text, not a list or a mapping")
        frame.key = node
    else:
        _add_entry(owner, frame.key, node)
        frame.key = None
    return node


def _add_entry(owner: _Node, key: _Node, value: _Node) -> None:
    assert owner.entries is not None
    _grow(owner, value)
    if key.is_merge_key and owner.merge_line:
        owner.repeats.append((key.text, key.line, owner.merge_line))
        return
    if key.is_merge_key:
        parts = value.items if value.items is not None else [value]
        if not all(part.entries is not None for part in parts):
            raise _Invalid(key.line, "<< merges mappings, nothing else")
        owner.merged, owner.merge_line = parts, key.line
        return
    if key.text in owner.entries:
        owner.repeats.append((key.text, key.line, owner.entries[key.text][0]))
    owner.entries[key.text] = (key.line, value)


def _grow(owner: _Node, child: _Node) -> None:
    owner.size += child.size
    owner.depth = max(owner.depth, child.depth + 1)
    if owner.size > MAX_PARTS:
        raise _Invalid(owner.line, f"the document has more than {MAX_PARTS} parts once its aliases are resolved")
    if owner.depth > MAX_DEPTH:
        raise _Invalid(owner.line, f"nested deeper than {MAX_DEPTH} levels once its aliases are resolved")
