"""The parts of a compose file, each read by a pure function: its short and its long form come to the same."""
