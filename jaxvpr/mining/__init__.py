"""Searches of training descriptors on the devices that hold them, restricted by the positions of the images."""
