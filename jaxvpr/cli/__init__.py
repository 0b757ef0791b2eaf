"""What the user types: verbs and flags, recipes, changes to them, and files of sweeps. Nothing here imports JAX."""
