"""What answers where, and how fit it is: every node tells its own instances, the leader replicates changes, all nodes look them up."""
