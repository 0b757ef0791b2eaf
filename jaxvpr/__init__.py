"""Visual place recognition in JAX/Flax: one engine that trains, evaluates and exports every family of methods."""
