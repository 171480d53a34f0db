"""What a run is assembled from: parts, programs, state, data, checks, evaluation."""
