#!/bin/bash
# A script that calls the trainer with what it is given.
exec python3 trainer.py "$@"
