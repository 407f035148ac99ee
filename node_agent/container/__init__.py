"""The container engine of this node."""
