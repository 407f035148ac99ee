"""Whether all hold the same state, and what the odd one does (docs/adr/0075)."""
