"""Giving a module the weights of another library's, name by name."""

import torch


def take_weights(ours, theirs, names):
    """Copies every parameter and buffer of `theirs` to `ours`; nothing may be left over.

    Args:
        ours: the module that is filled.
        theirs: the module that is read.
        names: our prefix -> their prefix; the first that fits is taken.
    """
    state = theirs.state_dict()
    mapped = {}
    for key in ours.state_dict():
        prefix = next(p for p in names if key.startswith(p))
        mapped[key] = state.pop(names[prefix] + key.removeprefix(prefix))
    assert not state, sorted(state)
    ours.load_state_dict(mapped)


def randomise(module, seed=0):
    """Draws all weights and the statistics of norms, so that none is a neutral 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            positive = name.endswith("running_var")
            tensor.copy_(noise.abs() + 0.5 if positive else 0.1 * noise + (tensor.ndim == 1) * 0.3)
    return module.eval()


def pyramid(channels=(8, 16, 24, 32), size=(17, 23), batch=2, seed=0):
    """Random stages of strides 4 to 32, shallow to deep."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    stages = []
    for channel in channels:
        stages.append(torch.randn(batch, channel, height, width, generator=generator))
        height, width = -(-height // 2), -(-width // 2)
    return stages
