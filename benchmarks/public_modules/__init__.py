"""LightningModules of other people's wheels, trained here as they are: the list, and what runs it."""
