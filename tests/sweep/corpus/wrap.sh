#!/bin/bash
# What many put before a program: some set-up, then the command.
exec "$@"
