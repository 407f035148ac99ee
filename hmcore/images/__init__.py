"""Images without a registry: what they are called, what is in the archives that Docker writes and reads, and the calls about them."""
