"""Ways of stepping lanes: how the stacked weights of a batch move, given the stacked gradient."""
