"""What there is to know about a host before touching it. One file a topic: a shell command and a pure parser of what it prints.

gather.py joins the commands into one script, so that a host is asked once, over one channel.
"""
