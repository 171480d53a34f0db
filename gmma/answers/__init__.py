"""How texts that models write are read: boxes, points, paths, mathematics."""
