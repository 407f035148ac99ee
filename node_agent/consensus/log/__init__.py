"""What lies on the disk: the journal of entries, term and vote (journal.py), and snapshots (snapshots.py)."""
