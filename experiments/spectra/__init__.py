"""Spectra: posteriors and likelihoods compared, the noise recovered, three questions answered."""
