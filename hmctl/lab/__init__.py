"""Local test hosts: real systemd, OpenSSH, Docker Engine and kernel namespaces, several on one machine (docs/adr/0010)."""
