"""Apps: what their compose files came to, where it runs, and how it fares."""
