"""Measures: what is read off runs and tickets. Each is one typed function."""
