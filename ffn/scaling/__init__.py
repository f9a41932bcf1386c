"""The scaling study: throughput over ranks, learning rate over workers, time to a given F1, a model of the costs."""
