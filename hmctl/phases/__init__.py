"""What deploy and reset do to a host, one file a phase. actions/ lists them in order; runner.py carries them out."""
