"""`gmma plan`: programs compiled for slices that are not there."""
