"""Models and data to start from: each shows its command; `mlmodeldev init --example` copies it."""
