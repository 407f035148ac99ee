"""Beneath scheduler.py: what nodes have, what is taken of it, who passes the filters, who comes first, and what might move."""
