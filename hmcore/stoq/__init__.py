"""STOQ, the transport between machines and on the agent's socket. docs/adr/0002, 0020 to 0024 and 0076 say why it is as it is."""
