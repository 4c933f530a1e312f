"""What must not happen to a trial, made to happen."""
