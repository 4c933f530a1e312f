"""What a trial survives: power cuts, two owners, hung steps, odd input."""
