"""`gmma sweep`: arms, queue, results, tables, plots, and the grid in one program."""
