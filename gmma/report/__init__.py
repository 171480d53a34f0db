"""`gmma report`: a run or a sweep as one HTML page that opens from disk and asks no network."""
