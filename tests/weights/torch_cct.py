"""Compact convolutional transformers in plain PyTorch, with the parameter names of SHI-Labs' original."""

import torch
import torch.nn.functional as F
from torch import nn


class Tokenizer(nn.Module):
    def __init__(self, stem, width):
        super().__init__()
        stages = [self.stage(3, stem), self.stage(stem, width)]
        self.conv_layers = nn.Sequential(*stages)

    @staticmethod
    def stage(inside, outside):
        return nn.Sequential(nn.Conv2d(inside, outside, 7, 2, 3, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1))

    def forward(self, images):
        return self.conv_layers(images)


class SelfAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).unbind(2)
        found = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return self.proj(found.transpose(1, 2).reshape(batch, tokens, width))


class Layer(nn.Module):
    """Only the attention is normalised beforehand; `norm1` changes what the perceptron is added to."""

    def __init__(self, width, heads, ratio):
        super().__init__()
        self.pre_norm = nn.LayerNorm(width)
        self.self_attn = SelfAttention(width, heads)
        self.linear1 = nn.Linear(width, ratio * width)
        self.norm1 = nn.LayerNorm(width)
        self.linear2 = nn.Linear(ratio * width, width)

    def forward(self, x):
        x = self.norm1(x + self.self_attn(self.pre_norm(x)))
        return x + self.linear2(F.gelu(self.linear1(x)))


class Classifier(nn.Module):
    """All that follows the tokenizer, up to the normalised tokens `[B, N, C]`."""

    def __init__(self, cells, width, depth, heads, ratio, classes):
        super().__init__()
        self.attention_pool = nn.Linear(width, 1)
        self.positional_emb = nn.Parameter(torch.zeros(1, cells, width))
        self.blocks = nn.ModuleList(Layer(width, heads, ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        if classes:
            self.fc = nn.Linear(width, classes)

    def forward(self, x):
        """`x` is a map: where its shape is not that of the positions, those are interpolated like an image."""
        positions = self.positional_emb
        side = int(positions.shape[1] ** 0.5)
        if x.shape[2:] != (side, side):
            grid = positions.transpose(1, 2).reshape(1, -1, side, side)
            positions = F.interpolate(grid, x.shape[2:], mode="bilinear").flatten(2).transpose(1, 2)
        x = x.flatten(2).transpose(1, 2) + positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def pool(self, tokens):
        shares = self.attention_pool(tokens).softmax(1)
        return (shares * tokens).sum(1)


class CCT(nn.Module):
    def __init__(self, size=384, width=384, depth=14, heads=6, ratio=3, stem=64, classes=0):
        super().__init__()
        self.tokenizer = Tokenizer(stem, width)
        self.classifier = Classifier((size // 16) ** 2, width, depth, heads, ratio, classes)

    def forward(self, images):
        return self.classifier(self.tokenizer(images))


class TokenNetVLAD(nn.Module):
    """NetVLAD over tokens `[B, N, D]`, whose assignment is a convolution in one dimension."""

    def __init__(self, dim, clusters):
        super().__init__()
        self.conv = nn.Conv1d(dim, clusters, 1, bias=False)
        self.centroids = nn.Parameter(torch.rand(clusters, dim))

    def forward(self, tokens):
        x = F.normalize(tokens, dim=-1)
        shares = self.conv(x.transpose(1, 2)).softmax(1)
        residuals = x[:, None] - self.centroids[None, :, None]
        return F.normalize(F.normalize((shares[..., None] * residuals).sum(2), dim=-1).flatten(1))


class TokenGeM(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.ones(1) * 3)

    def forward(self, tokens):
        return tokens.clamp(min=1e-6).pow(self.p).mean(1).pow(1 / self.p)


class PlaceNet(nn.Module):
    """The Deep VG benchmark's or vg-transformers' network around it: `parts` are the names of its two children."""

    def __init__(self, cct, how, parts=("backbone", "aggregation"), clusters=4):
        super().__init__()
        self.how, self.parts = how, parts
        width = cct.classifier.norm.weight.numel()
        heads = {"gem": lambda: nn.Sequential(TokenGeM()), "netvlad": lambda: TokenNetVLAD(width, clusters)}
        setattr(self, parts[0], cct)
        setattr(self, parts[1], heads.get(how, nn.Identity)())

    def forward(self, images):
        cct, head = (getattr(self, part) for part in self.parts)
        tokens = cct(images)
        if self.how == "seqpool":
            tokens = cct.classifier.pool(tokens)
        elif self.how == "cls":
            tokens = tokens[:, 0]
        return head(tokens)
