"""LightningModules of public wheels, trained here as they are: the list, and what runs it."""
