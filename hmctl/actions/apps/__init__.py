"""What `hmctl app` does: apps are read and changed by the control nodes (calls.py), prepared on the operator's machine (deploying.py,
preparing.py), and what the nodes answer becomes the documents that are shown (view.py and those beside it)."""
