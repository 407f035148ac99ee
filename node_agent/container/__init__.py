"""The containers of this node: what Docker tells of them, what shall run here, and what makes the one the other.

reconcile.py and replica.py decide, executor.py does; supply.py has images brought, keeping.py keeps their blobs for other nodes.
"""
