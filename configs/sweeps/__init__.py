"""Sweeps: files with `get_sweep(preset)`, each of which names a recipe and the runs that vary it
(`jaxvpr/cli/sweep_file.py` explains the keys)."""
