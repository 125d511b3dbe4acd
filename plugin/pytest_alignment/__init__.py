"""The pytest plugin of alignment-checks."""
