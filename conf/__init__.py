"""Hydra configs, one folder a group."""
