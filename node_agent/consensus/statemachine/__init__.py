"""The replicated state and what changes it: commands in, a new state out. Pure but for replica.py, which holds the copy of this node."""
