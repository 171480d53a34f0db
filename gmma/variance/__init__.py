"""`gmma variance`: noise of thought values, simulated and measured."""
