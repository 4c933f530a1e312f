"""What may go wrong around a trial, and what holds then."""
