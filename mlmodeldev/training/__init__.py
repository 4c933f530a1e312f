"""How a model is trained: processes, optimizer and schedule, and Lightning's Trainer."""
