"""The ρ-VAE, tested: two covariance parameters against none, d and d(d + 1)/2, on images."""
