"""The node's end: the daemon and its layers. Never imported by the command line."""
