"""One trial on disk: its identity, record, checkpoints and interruption."""
