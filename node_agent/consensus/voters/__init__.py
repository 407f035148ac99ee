"""Who votes: formation and re-seeding (enrolment.py), and changes through the log (reconfiguration.py; docs/adr/0069)."""
