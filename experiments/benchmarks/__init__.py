"""Measurements of cost, interleaved and reported as ratios: absolute times mean little on a shared machine."""
