"""What voters say to each other, and what is done with it before pysyncobj hears of it (docs/adr/0003, 0025, 0027)."""
