"""Agent releases: built here once per Python minor and architecture, cached, named by what they contain.

lock.py says what goes in, index.py where from, build.py makes the archive, store.py keeps it.
"""
