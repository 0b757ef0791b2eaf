"""From images to recall: descriptors, search, comparison with the positives, and costs."""
