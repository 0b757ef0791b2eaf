"""The one training loop: state, step, optimisers, checkpoints, logs."""
