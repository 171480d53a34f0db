"""What a run leaves: checkpoints, metrics, console, diagnostics."""
