"""STOQ/1, the transport between machines and on the agent's socket. docs/adr/0002 and 0020 to 0024 say why it is as it is."""
