"""What each tracker has of a trial, as plain values: one file for each, and one for a trial's side.

A new tracker is a class like those here, and its line in ``TRACKERS`` of ``test_promises.py``.
"""
