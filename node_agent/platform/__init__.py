"""The agent as a whole: start-up in phases, the life of its components, its health, its API."""
