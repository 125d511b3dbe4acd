"""What the tests of one subject have in common: their cases, and how those are made and held against the truth."""
