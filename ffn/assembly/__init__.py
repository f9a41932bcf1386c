"""From the labels of overlapping sub-volumes to one volume with global ids."""
