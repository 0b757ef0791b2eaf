"""Recipes: one file a family, each with `get_config(preset)`.

Every key there is, and its default, stands in `common.py`, those of the objectives in `objectives.py`. Trainings that
several recipes begin from are in `trainings.py`.
"""
