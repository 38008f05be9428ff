"""The computations of the methods on tensors, without an optimizer's state or settings."""
