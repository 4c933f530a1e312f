"""What may happen to a trial, made to happen, and what holds then."""
