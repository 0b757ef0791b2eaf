"""What a person looks at after a run: an HTML file with tables, curves, map and gallery, and pictures of answers."""
