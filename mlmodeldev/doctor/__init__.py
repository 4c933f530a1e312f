"""What may be wrong with a machine, a cluster and the settings; a fix for each."""
