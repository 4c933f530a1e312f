"""Files from anywhere: downloaded once, whole, verified, unpacked; a library of its own."""
