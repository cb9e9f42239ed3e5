"""The maths: compares two summaries and gives numbers with their uncertainty. No input, output or clock."""
