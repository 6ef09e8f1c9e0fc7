"""The ρ-VAE put to the test: two covariance parameters against none, d and d(d + 1)/2, on images."""
