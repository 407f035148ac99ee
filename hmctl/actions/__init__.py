"""Workflows: each an ordered list of phases that reads as its table of contents."""
