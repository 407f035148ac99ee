"""A worker's copy of the replicated state, kept up by watching a control node (docs/adr/0073)."""
