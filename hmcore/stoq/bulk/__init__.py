"""Content by its digest, over TLS on the node's TCP port: layers of images, releases. Apart from QUIC, which in Python is for control.

frames.py is the protocol's bytes, without I/O; tls.py who is at the other end; wire.py a connection on the event loop; streams.py what
content comes from and goes to; client.py and server.py the two ends. docs/adr/0097 says why it is as it is.
"""
