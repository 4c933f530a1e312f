"""A stand-in for ClearML's server, on this machine."""
