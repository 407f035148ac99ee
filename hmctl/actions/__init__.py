"""What the commands do. Workflows (deploy.py, reset.py, config_apply.py) are ordered lists of phases that read as their own table of
contents; the others ask agents, and make of the answers the documents that are shown."""
