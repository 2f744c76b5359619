"""Looking at data sets before training: the page of `prepare`, near-duplicate images."""
