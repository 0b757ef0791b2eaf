"""What the command line can do: one file a verb, each with `run`, which takes the recipe and plain values."""
