"""Where one series of a run is going as T → ∞: the means of what converges, recurs, or is random."""
