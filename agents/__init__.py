"""Reinforcement-learning algorithms with SB3 interfaces."""
