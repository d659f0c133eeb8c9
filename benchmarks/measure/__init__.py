"""How a measurement is made and judged: the generator, its histograms, ratios, the machine."""
