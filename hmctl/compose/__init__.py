"""Compose files: read, resolved, and turned into what the cluster keeps of an app."""
