"""What training and inference need before they start: edges, seeds, partitions, coordinates, soft labels."""
