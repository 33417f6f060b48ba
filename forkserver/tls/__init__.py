"""Certificates and the SSL contexts made from them."""
