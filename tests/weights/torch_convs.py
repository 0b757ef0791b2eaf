"""Plain PyTorch VGG16 and EfficientNet with torchvision's parameter names, written apart from ours to compare with."""

import torch
from torch import nn
from torch_models import GeM, L2Norm

# stem, stages, last convolution; then blocks a stage (torchvision's, counted in its printed modules).
B0 = ((32, 16, 24, 40, 80, 112, 192, 320, 1280), (1, 2, 2, 3, 3, 4, 1))
B7 = ((64, 32, 48, 80, 160, 224, 384, 640, 2560), (4, 7, 7, 10, 10, 13, 4))
# What a quarter of B0's width and 0.3 of its depth come to.
SMALL = ((8, 8, 8, 16, 24, 32, 48, 80, 320), (1, 1, 1, 1, 1, 2, 1))


def vgg16(widths=(64, 128, 256, 512, 512), classes=10):
    layers, inside = [], 3
    for width, count in zip(widths, (2, 2, 3, 3, 3), strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(inside, width, 3, padding=1), nn.ReLU()]
            inside = width
        layers.append(nn.MaxPool2d(2, 2))
    model = nn.Module()
    model.features = nn.Sequential(*layers)
    sides = [nn.Linear(49 * inside, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 20), nn.ReLU(), nn.Dropout()]
    model.classifier = nn.Sequential(*sides, nn.Linear(20, classes))
    return model


class SqueezeExcitation(nn.Module):
    def __init__(self, channels, squeezed):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        y = self.fc2(nn.functional.silu(self.fc1(nn.functional.adaptive_avg_pool2d(x, 1))))
        return x * torch.sigmoid(y)


def normed(inside, outside, size, stride, norm, groups=1, active=True):
    convolution = nn.Conv2d(inside, outside, size, stride, (size - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, norm(outside), *([nn.SiLU()] if active else []))


class MBConv(nn.Module):
    def __init__(self, inside, outside, expansion, size, stride, norm):
        super().__init__()
        hidden = inside * expansion
        self.block = nn.Sequential(
            *([normed(inside, hidden, 1, 1, norm)] if expansion > 1 else []),
            normed(hidden, hidden, size, stride, norm, groups=hidden),
            SqueezeExcitation(hidden, inside // 4),
            normed(hidden, outside, 1, 1, norm, active=False),
        )
        self.shortcut = stride == 1 and inside == outside

    def forward(self, x):
        return x + self.block(x) if self.shortcut else self.block(x)


def efficientnet(channels, blocks, **norm_options):
    def norm(width):
        return nn.BatchNorm2d(width, **norm_options)

    stem, *stages, last = channels
    features, inside = [normed(3, stem, 3, 2, norm)], stem
    kinds = ((1, 3, 1), (6, 3, 2), (6, 5, 2), (6, 3, 2), (6, 5, 1), (6, 5, 2), (6, 3, 1))
    for outside, count, (expansion, size, stride) in zip(stages, blocks, kinds, strict=True):
        stage = []
        for i in range(count):
            stage.append(MBConv(inside, outside, expansion, size, stride if i == 0 else 1, norm))
            inside = outside
        features.append(nn.Sequential(*stage))
    model = nn.Module()
    model.features = nn.Sequential(*features, normed(inside, last, 1, 1, norm))
    model.classifier = nn.Sequential(nn.Dropout(), nn.Linear(last, 10))
    return model


class CosPlaceNet(nn.Module):
    """VGG's layers stand in the backbone's Sequential themselves, without the last two; EfficientNet's one deeper."""

    def __init__(self, network, channels, dim):
        super().__init__()
        vgg = isinstance(network.features[1], nn.ReLU)
        self.backbone = nn.Sequential(*(list(network.features)[:-2] if vgg else [network.features]))
        self.aggregation = nn.Sequential(L2Norm(), GeM(), nn.Flatten(), nn.Linear(channels, dim), L2Norm())

    def forward(self, x):
        return self.aggregation(self.backbone(x))


class Cut(nn.Module):
    """The first layers of `features`, pooled by GeM; has the names of the whole network."""

    def __init__(self, network, count):
        super().__init__()
        self.network, self.count = network, count
        self.pool = nn.Sequential(GeM(), nn.Flatten(), L2Norm())

    def forward(self, x):
        return self.pool(self.network.features[: self.count](x))
