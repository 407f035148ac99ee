"""Who is a member and who lives. What the leader decides is pure; thin shells listen, decide in turns and propose."""
