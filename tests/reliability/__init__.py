"""What may happen to a trial, and what holds then."""
