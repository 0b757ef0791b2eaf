"""What a recipe draws and learns. One file a family; `objective.py` is the seam they share."""
