"""Files and output of a run: checkpoints, metrics, console, diagnostics."""
