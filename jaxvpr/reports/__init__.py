"""Reports of a run for people: an HTML file with tables, curves, map and gallery, and pictures of predictions."""
