"""The agent's connections: one to each peer (pool.py), and the port on which others reach it (listener.py)."""
