"""Behaviour as it was recorded once, told by what is seen from outside: README.md tells more."""
