"""The operator's end: the command line, SSH, plans and rendering. Never imported by the agent."""
