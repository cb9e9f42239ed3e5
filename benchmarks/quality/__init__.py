"""``make bench-quality``: false alarms, power, delay and places, on fixed seeds, as one table."""
