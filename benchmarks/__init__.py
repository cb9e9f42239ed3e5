"""Speed and memory, as ratios within one run. Not tests: machines are noisy."""
