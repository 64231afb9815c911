"""Networks: torso, core, heads."""
