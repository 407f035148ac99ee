"""Exclusive containers end with their node's lease, whatever becomes of the agent (docs/adr/0083).

`python -m node_agent.container.fencing` is the fence, a process of its own: it and what it imports (lease.py, gates.py, killing.py,
fence.py, notify.py of the agent) use the standard library alone. The agent's side is chain.py (pure), keeper.py.
"""
