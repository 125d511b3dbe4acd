"""How runs are trained: `loop`, the plain PyTorch loop and the oracle; `lanes`, many runs at once."""
