"""Showing: the web page. It takes plain values and gives text."""
