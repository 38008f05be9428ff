"""Images unlike those of training: corrupted as they are read, and data sets made to be evaluated on."""
