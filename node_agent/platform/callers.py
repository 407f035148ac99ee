"""Who may call what: nodes speak to nodes, operators change, viewers read."""

from __future__ import annotations

from hmcore.pki import Kind

NODES = (Kind.NODE,)
READERS = (Kind.OPERATOR, Kind.VIEWER)
CHANGERS = (Kind.OPERATOR,)
