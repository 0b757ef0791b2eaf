"""Pooling heads in plain PyTorch with the originals' parameter names, and the nets they stand in."""

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch_models import GeM, L2Norm


class SPoC(nn.Module):
    def forward(self, x):
        return x.mean((2, 3), keepdim=True)


class MAC(nn.Module):
    def forward(self, x):
        return x.amax((2, 3), keepdim=True)


class RMAC(nn.Module):
    """Regions from the paper: the number along the long side whose overlap is nearest to 40 %, at three scales."""

    def forward(self, x):
        high, wide = x.shape[2:]
        short, long = min(high, wide), max(high, wide)
        overlaps = [abs((short * short - short * (long - short) / steps) / short**2 - 0.4) for steps in range(1, 7)]
        extra = overlaps.index(min(overlaps)) + 1
        total = self.unit(x.amax((2, 3)))
        for level in (1, 2, 3):
            side = 2 * short // (level + 1)
            tops = self.starts(high, side, level + extra * (high > wide))
            for top, left in product(tops, self.starts(wide, side, level + extra * (wide > high))):
                total = total + self.unit(x[:, :, top : top + side, left : left + side].amax((2, 3)))
        return total[:, :, None, None]

    def starts(self, length, side, count):
        half = torch.tensor(side // 2 - 1.0)
        steps = torch.arange(count) * ((length - side) / max(count - 1, 1))
        return [int(at) for at in (half + steps).floor() - half]

    def unit(self, v):
        return v / (v.norm(dim=1, keepdim=True) + 1e-6)


class RRM(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x):
        x = self.ln1(x.mean((2, 3)))
        return F.normalize(self.ln2(x + self.fc2(F.relu(self.fc1(x)))))


class NetVLAD(nn.Module):
    """Residuals one cluster at a time, as they are defined."""

    def __init__(self, dim, clusters, bias=False, tokens=False):
        super().__init__()
        self.conv = (nn.Conv1d if tokens else nn.Conv2d)(dim, clusters, 1, bias=bias)
        self.centroids = nn.Parameter(torch.rand(clusters, dim))
        self.tokens = tokens

    def forward(self, x):
        x = F.normalize(x)
        assign = self.conv(x.flatten(2) if self.tokens else x).flatten(2).softmax(1)
        return self.sum(x.flatten(2), assign)

    def sum(self, x, assign):
        blocks = [
            ((x - centroid[None, :, None]) * assign[:, k : k + 1]).sum(-1) for k, centroid in enumerate(self.centroids)
        ]
        return F.normalize(F.normalize(torch.stack(blocks, 1), dim=2).flatten(1))


class Context(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.filter_3_3 = nn.Conv2d(dim, 32, 3, padding=1)
        self.filter_5_5 = nn.Conv2d(dim, 32, 5, padding=2)
        self.filter_7_7 = nn.Conv2d(dim, 20, 7, padding=3)
        self.acc_w = nn.Conv2d(84, 1, 1)

    def forward(self, x):
        x = F.avg_pool2d(x, 3, 2, ceil_mode=True)
        context = torch.cat([self.filter_3_3(x), self.filter_5_5(x), self.filter_7_7(x)], 1)
        return F.interpolate(F.relu(self.acc_w(F.relu(context))), scale_factor=2, mode="bilinear")


class CRN(NetVLAD):
    def __init__(self, dim, clusters):
        super().__init__(dim, clusters)
        self.crn = Context(dim)

    def forward(self, x):
        x = F.normalize(x)
        mask = self.crn(x)
        assert mask[0].max() > 0.1, "a mask of zeros tests nothing"
        return self.sum(x.flatten(2), self.conv(x).flatten(2).softmax(1) * mask.flatten(2))


class SuperVLADHead(nn.Module):
    def __init__(self, dim, clusters, ghosts):
        super().__init__()
        self.conv = nn.Conv2d(dim, clusters + ghosts, 1, bias=False)
        self.clusters = clusters

    def forward(self, x):
        x = F.normalize(x)
        assign = self.conv(x).flatten(2).softmax(1)
        blocks = [(x.flatten(2) * assign[:, k : k + 1]).sum(-1) for k in range(self.clusters)]
        return F.normalize(F.normalize(torch.stack(blocks, 1), dim=2).flatten(1))


class SuperVLAD(nn.Module):
    """`backbone`, `aggregation` and the `encoder`, whose sequence is the batch."""

    def __init__(self, vit, dim, clusters, ghosts, heads, hidden, layers):
        super().__init__()
        self.backbone, self.aggregation = vit, SuperVLADHead(dim, clusters, ghosts)
        if layers:
            layer = nn.TransformerEncoderLayer(dim, heads, hidden, 0.1, "gelu")
            self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x, alone=False):
        cells, _ = self.backbone(x)
        x = self.aggregation(cells)
        if hasattr(self, "encoder"):
            parts = x.unflatten(1, (-1, cells.shape[1]))
            x = torch.cat([self.encoder(one) for one in parts.split(1)]) if alone else self.encoder(parts)
        return F.normalize(x.flatten(1))


def vlad(x, words, cosine):
    """AnyLoc's: every feature of an image [D, N] goes to its nearest word, in a loop."""
    result = torch.zeros_like(words)
    for feature in F.normalize(x.T):
        likeness = F.cosine_similarity(feature[None], words) if cosine else -(feature - words).norm(dim=1)
        result[likeness.argmax()] += feature - words[likeness.argmax()]
    return F.normalize(F.normalize(result).flatten(), dim=0)


class Net(nn.Module):
    """`backbone` and `aggregation`, as the Deep VG benchmark joins them."""

    def __init__(self, backbone, head, l2=None, channels=0, dim=0):
        super().__init__()
        self.backbone = backbone
        pools = {
            "before": lambda: nn.Sequential(L2Norm(), head, nn.Flatten()),
            "after": lambda: nn.Sequential(head, L2Norm(), nn.Flatten()),
            "none": lambda: nn.Sequential(head, nn.Flatten()),
            None: lambda: head,
        }
        self.aggregation = pools[l2]()
        if dim:
            self.aggregation = nn.Sequential(self.aggregation, nn.Linear(channels, dim), L2Norm())

    def forward(self, x):
        return self.aggregation(self.backbone(x))


class Port(nn.Module):
    """`encoder`, `pool` and `WPCA` of NetVLAD's PyTorch port and Patch-NetVLAD."""

    def __init__(self, encoder, dim, clusters, bias=False, pca=0, wrapped=False):
        super().__init__()
        self.encoder, self.pool = encoder, NetVLAD(dim, clusters, bias)
        if wrapped:
            self.encoder = nn.ModuleDict({"module": self.encoder})
            self.pool = nn.ModuleDict({"module": self.pool})
        if pca:
            self.WPCA = nn.Sequential(nn.Conv2d(dim * clusters, pca, 1), nn.Flatten(), L2Norm())

    def forward(self, x):
        encoder, pool = (m["module"] if isinstance(m, nn.ModuleDict) else m for m in (self.encoder, self.pool))
        x = pool(encoder(x))
        return self.WPCA(x[..., None, None]) if hasattr(self, "WPCA") else x


class SFRS(nn.Module):
    def __init__(self, vgg, dim, clusters, pca):
        super().__init__()
        self.base_model = nn.Module()
        self.base_model.base = vgg
        self.net_vlad = NetVLAD(dim, clusters)
        self.pca_layer = nn.Conv2d(dim * clusters, pca, 1)

    def forward(self, x):
        return F.normalize(self.pca_layer(self.net_vlad(self.base_model.base(x))[..., None, None]).flatten(1))


class Hloc(nn.Module):
    """NetVLAD as hloc has it: centres [D, K], a descriptor of D blocks."""

    def __init__(self, vgg, dim, clusters, pca):
        super().__init__()
        self.backbone, self.netvlad, self.whiten = vgg, nn.Module(), nn.Linear(dim * clusters, pca)
        self.netvlad.score_proj = nn.Conv1d(dim, clusters, 1, bias=False)
        self.netvlad.centers = nn.Parameter(torch.rand(dim, clusters))

    def forward(self, x):
        x = F.normalize(self.backbone(x).flatten(2))
        apart = x[:, :, None] - self.netvlad.centers[None, :, :, None]
        vlad = (apart * self.netvlad.score_proj(x).softmax(1)[:, None]).sum(-1)
        return F.normalize(self.whiten(F.normalize(F.normalize(vlad).flatten(1))))


def whiten(x, mean, components, variance, power):
    """AP-GeM's, on unit vectors: turned to the components, divided by a power of their variances."""
    y = np.dot(x - mean, components.T) / np.power(variance, power)
    return y / np.linalg.norm(y, axis=1, keepdims=True)


class APGeM(nn.Module):
    """A residual network whose own children are the model's, then `adpool` and `fc`; whitening is done outside."""

    def __init__(self, resnet, channels, dim):
        super().__init__()
        for name, child in list(resnet.named_children())[:-1]:
            self.add_module(name, child)
        self.adpool, self.fc = GeM(), nn.Linear(channels, dim)

    def forward(self, x):
        for name, child in self.named_children():
            x = child(x).flatten(1) if name == "adpool" else child(x)
        return F.normalize(x)


class Clip(nn.Module):
    """vg-transformers' names for clips of one frame."""

    def __init__(self, encoder, pooling, aggregator):
        super().__init__()
        self.encoder, self.pooling, self.aggregator = encoder, pooling, aggregator

    def forward(self, x):
        return self.aggregator(self.pooling(self.encoder(x)))


def small_vgg(widths):
    """VGG16's features without the last ReLU and pooling, with five widths of one's own."""
    layers, inside = [], 3
    for count, width in zip((2, 2, 3, 3, 3), widths, strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(inside, width, 3, padding=1), nn.ReLU()]
            inside = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers[:-2])
