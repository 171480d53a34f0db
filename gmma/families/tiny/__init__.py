"""`tiny`: the family that trains on a laptop."""
