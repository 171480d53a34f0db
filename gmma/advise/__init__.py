"""`gmma advise`: which K and M a second is best spent on, from one run's policy."""
