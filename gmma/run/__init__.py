"""The parts of a run: assembly, programs, state, data, checks, evaluation."""
