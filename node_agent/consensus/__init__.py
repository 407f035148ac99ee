"""Consensus: pysyncobj replicates opaque batches of commands; everything that makes that safe is here (docs/adr/0003)."""
