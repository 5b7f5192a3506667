"""What is multiplied inside torch: the types of the factors that products and convolutions were asked for."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Multiplied(TorchDispatchMode):
    """The types of what convolutions, forward and backward, and matrix products are asked to multiply."""

    def __init__(self):
        super().__init__()
        self.dtypes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "conv" in func.name() or func.name() == "aten::mm":
            self.dtypes += [one.dtype for one in args if isinstance(one, torch.Tensor)]
        return func(*args, **(kwargs or {}))
