"""The cluster's secrets: who can open them, and how they come to the nodes that need them (docs/adr/0082)."""
