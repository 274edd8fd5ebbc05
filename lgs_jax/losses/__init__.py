"""Terms of the training losses: reconstruction, perceptual distance, KL divergence."""
