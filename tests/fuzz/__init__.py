"""Odd input of every kind: right values or one clear line, and nothing run, hung or left outside."""
