"""Triton kernels, one module per operator; imported only when the triton backend runs."""
