"""An EM-like volume with exact labels, made from a seed."""
