"""Devices, hosts and how arrays lie on them. One device is a mesh of one, not a branch."""
