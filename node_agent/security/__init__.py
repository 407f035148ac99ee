"""The security layer: eBPF programs that count and watch what our containers do, and the agent's view of them (docs/architecture.md)."""
