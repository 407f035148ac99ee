"""What becomes of an app's replicas next, in its parts: rollout.py puts them together."""
