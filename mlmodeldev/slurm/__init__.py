"""From a sweep file to trials that run: what exists, what is missing, who runs it."""
