"""Random numbers as a function of seed, step and call, in place of torch's own while a model trains."""
