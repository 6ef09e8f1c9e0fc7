"""Which ELBO estimator to optimise."""
