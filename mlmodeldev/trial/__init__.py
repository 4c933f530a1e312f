"""One trial: its identity, its record on disk, its worker."""
