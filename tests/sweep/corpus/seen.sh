#!/bin/bash
exec python3 seen.py "$@"
