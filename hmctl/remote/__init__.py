"""Hosts over SSH: what a phase may ask of one (base.py), the real thing (ssh.py), and one that lives in memory for tests (fake.py)."""
