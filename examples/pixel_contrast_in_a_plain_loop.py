"""Pixel contrast added to a segmentation_models_pytorch network in a plain training loop."""

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F

from pixelcontrast.losses import PixelInfoNCE

network = smp.DeepLabV3Plus("resnet18", encoder_weights=None, classes=5)
head = torch.nn.Conv2d(network.segmentation_head[0].in_channels, 64, 1)  # thrown away afterwards
contrast = PixelInfoNCE(temperature=0.1, ignore_index=255)
optimizer = torch.optim.SGD([*network.parameters(), *head.parameters()], lr=0.05, momentum=0.9)

images = torch.rand(4, 3, 64, 64)  # stands for a data loader
masks = torch.randint(0, 5, (4, 8, 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)
masks[:, :4] = 255
for step in range(5):
    features = network.decoder(network.encoder(images))
    logits = network.segmentation_head(features)
    loss = F.cross_entropy(logits, masks, ignore_index=255) + 0.1 * contrast(head(features), masks)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step}: loss {loss.item():.3f}")
