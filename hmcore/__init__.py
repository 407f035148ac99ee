"""What both ends must agree on: configuration, records, wire protocol, certificates, errors. Imports neither end."""
