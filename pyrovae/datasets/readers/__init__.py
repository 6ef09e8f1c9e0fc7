"""Readers of files, one format a file; :mod:`~pyrovae.datasets.readers.formats` lists them."""
