"""Which pieces of one neuron the network itself would join: pairs that meet, filled again from both sides."""
