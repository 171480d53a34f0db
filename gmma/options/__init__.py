"""What the command line takes. Nothing here imports JAX: help is printed at once."""
