"""A program that is no trainer: what sweeps of any program name."""

import sys

print(sys.argv[1:])
