"""What the tests of all engines share."""

import torch

from pixelcontrast.losses import pixel_info_nce

MODES = ("self", "keys", "detached", "both", "own")


def run(backend, mode, a, y, k, z, upstream, **options):
    """Loss of each anchor and the gradients of what requires one."""
    a, k = a.clone().requires_grad_(), k.clone().requires_grad_(mode != "detached")
    options = {"reduction": "none", "backend": backend, **options}
    images, key_images = options.pop("images", None), options.pop("key_images", None)
    if images is not None:
        options |= {"negatives": "own_image", "anchor_images_N": images}
        options["key_images_K"] = key_images
    if mode == "self":
        loss = pixel_info_nce(a, y, **options)
    elif mode == "own":
        if images is not None:
            options["key_images_K"] = torch.cat([key_images, images])
        keys, ids = torch.cat([k, a]), torch.cat([z, y])
        own = torch.arange(len(a)) + len(k)
        own[::5] = -1
        loss = pixel_info_nce(a, y, keys, ids, self_index_N=own, **options)
    else:
        loss = pixel_info_nce(a, y, k, z, include_anchors=mode == "both", **options)
    wanted = [a] if mode in ("self", "detached") else [a, k]
    return loss.detach(), *torch.autograd.grad((loss * upstream).sum(), wanted)


def distance(left, right):
    return ((left - right).abs().max() / right.abs().max().clamp_min(1e-12)).item()
