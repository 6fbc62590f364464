"""Training and evaluation of models. Only `run` and the modules that it imports need Lightning."""
