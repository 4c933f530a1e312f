"""What may happen to trials, and what then holds."""
