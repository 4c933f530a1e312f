"""Where metrics go: files that every trial writes, and trackers that are chosen."""
