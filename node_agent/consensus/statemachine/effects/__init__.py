"""What each command does to the state, by topic. Pure: a draft, a command and its place in the log give a result."""
