"""A setup's runs, ready to be trained: what they are made of and known by, and what is checked before any is."""
