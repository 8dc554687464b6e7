"""Training of encoders: a small network from scratch by episodes, or a pretrained one further on labelled pictures."""
