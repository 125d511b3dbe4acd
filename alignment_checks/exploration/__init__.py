"""The parts of a search: where to look, what is known, how a failure is made smaller, what is reported."""
