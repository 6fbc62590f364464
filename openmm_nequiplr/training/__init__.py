"""Training and judging models. Only `run` and what it imports need Lightning."""
