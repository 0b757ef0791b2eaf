"""Layers that are fitted to descriptors, not trained: clusters by k-means, and PCA."""
