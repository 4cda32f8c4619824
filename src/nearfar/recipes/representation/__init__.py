"""Learning representations of images, vectors and sequences: the objectives and how they are driven."""
