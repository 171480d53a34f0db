"""The command line's options. Nothing here imports JAX: help is printed at once."""
