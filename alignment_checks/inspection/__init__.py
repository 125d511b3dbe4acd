"""What a user's own torch code holds, computes and writes into, and what is added to its errors."""
