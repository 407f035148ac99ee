"""Consensus: pysyncobj replicates opaque batches of commands; everything that makes that safe is here (docs/adr/0003)."""

import sys
import types

# pysyncobj 0.3 brings functions of Windows for `socket`, and puts one of them in place of the standard library's inet_ntop on every system,
# where it only raises. It needs none of them here; whoever asks for the names of addresses (pyroute2) needs the real one.
sys.modules.setdefault("pysyncobj.win_inet_pton", types.ModuleType("pysyncobj.win_inet_pton"))
