"""From images to recall: extract descriptors, search them, compare with the positives, and say what it cost."""
