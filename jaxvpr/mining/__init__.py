"""Searches of training descriptors on the devices that hold them, and the map they must agree with."""
