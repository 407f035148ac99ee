"""The agent's connections: one to each peer (pool.py), and the port on which others reach it (listener.py). And the blobs that nodes keep
and fetch from each other (blobs.py, fetching.py)."""
