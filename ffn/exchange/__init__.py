"""Segmentations as google/ffn stores them, read and written; nothing in such a file is ever executed.

seg-<x>_<y>_<z>.npz, .prob  <──>  a stage's folder: segmentation.h5, origins.json, ... [, probability.h5]
"""
