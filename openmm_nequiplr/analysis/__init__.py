"""Pictures and trajectories: looking at what came out."""
