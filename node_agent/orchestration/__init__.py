"""What the leader decides: who is a member and who lives, where replicas run, how rollouts go on, which locks have ended.

That is pure; thin shells listen, decide in turns and propose.
"""
