"""Models of clips in plain PyTorch with the originals' parameter names, written apart from ours to compare with."""

import torch
import torch.nn.functional as F
from torch import nn
from torch_vits import Attention, Mlp, PatchEmbed


class Clips(nn.Module):
    """vg-transformers' parts, on frames `[B F, 3, H, W]`: `take` is what an encoder gives to the pooling."""

    def __init__(self, encoder, pooling, aggregator, frames, joint=False, take=lambda found: found):
        super().__init__()
        self.encoder, self.pooling, self.aggregator = encoder, pooling, aggregator
        self.frames, self.joint, self.take = frames, joint, take

    def forward(self, x):
        found = self.pooling(self.take(self.encoder(x)))
        clips = found.unflatten(0, (-1, self.frames))
        if not self.joint:
            return self.aggregator(clips.flatten(1))
        # Maps [B, F, C, h, w] side by side; tokens [B, F, N, C] one behind the other.
        whole = clips.transpose(1, 2).flatten(2, 3) if found.ndim == 4 else clips.flatten(1, 2)
        return self.aggregator(whole)


class DividedBlock(nn.Module):
    """One token for the clip, `[B, C]`, and cells `[B, F, N, C]`."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2, self.temporal_norm1 = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.attn, self.temporal_attn = Attention(width, heads), Attention(width, heads)
        self.temporal_fc = nn.Linear(width, width)
        self.mlp = Mlp(width)

    def forward(self, token, cells):
        places = [self.temporal_attn(self.temporal_norm1(cells[:, :, n])) for n in range(cells.shape[2])]
        cells = cells + self.temporal_fc(torch.stack(places, 2))
        tokens, seen = [], []
        for frame in cells.unbind(1):
            found = self.attn(self.norm1(torch.cat([token[:, None], frame], 1)))
            tokens.append(found[:, 0])
            seen.append(found[:, 1:])
        token, cells = token + torch.stack(tokens).mean(0), cells + torch.stack(seen, 1)
        return token + self.mlp(self.norm2(token)), cells + self.mlp(self.norm2(cells))


class TimeSformer(nn.Module):
    """Its class token, of frames `[B F, 3, H, W]` whose grid is that of the positions."""

    def __init__(self, width, depth, heads, patch, side, frames):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, width))
        self.time_embed = nn.Parameter(torch.zeros(1, frames, width))
        self.patch_embed = PatchEmbed(width, patch)
        self.blocks = nn.ModuleList(DividedBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x, frames):
        cells = (self.patch_embed(x) + self.pos_embed[:, 1:]).unflatten(0, (-1, frames))
        times = F.interpolate(self.time_embed.transpose(1, 2), frames, mode="nearest").transpose(1, 2)
        cells = cells + times[:, :, None]
        token = (self.cls_token + self.pos_embed[:, :1])[0].expand(len(cells), -1)
        for block in self.blocks:
            token, cells = block(token, cells)
        return self.norm(token)


class VideoModel(nn.Module):
    """Its own wrapper, `model.`, and vg-transformers' around that."""

    def __init__(self, network, frames, encoder=False):
        super().__init__()
        self.frames = frames
        held = nn.Module()
        held.model = network
        if encoder:
            self.encoder = held
        else:
            self.model = network

    def forward(self, x):
        network = self.encoder.model if hasattr(self, "encoder") else self.model
        return network(x, self.frames)


class SeqGeM(nn.Module):
    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.ones(1) * 3)

    def forward(self, clips):
        return clips.clamp(min=1e-6).pow(self.p).mean(1).pow(1 / self.p)


class Jist(nn.Module):
    """JIST around CosPlace, with each of its ways to describe clips `[B, F, D]`."""

    def __init__(self, cosplace, how, frames, dim):
        super().__init__()
        self.model, self.how, self.frames = cosplace, how, frames
        if how == "seqgem":
            self.seq_gem = SeqGeM()
        if how == "conv1d":
            self.conv1d = nn.Conv1d(dim, dim, frames)
        if how == "simplefc":
            self.final_fc = nn.Linear(dim * frames, dim, bias=False)

    def forward(self, x):
        clips = self.model(x).unflatten(0, (-1, self.frames))
        ways = {
            "seqgem": lambda: self.seq_gem(clips),
            "conv1d": lambda: self.conv1d(clips.transpose(1, 2))[..., 0],
            "simplefc": lambda: self.final_fc(clips.flatten(1)),
            "concat": lambda: clips.flatten(1),
            "mean": lambda: clips.mean(1),
            "max": lambda: clips.amax(1),
        }
        return ways[self.how]()


class SeqNet(nn.Module):
    """SeqNet's pooling, under its names: a convolution over time, the mean, unit length."""

    def __init__(self, dim, outside, width):
        super().__init__()
        conv = nn.Module()
        conv.conv = nn.Conv1d(dim, outside, width)
        self.pool = nn.Sequential(conv)

    def forward(self, clips):
        return F.normalize(self.pool[0].conv(clips.transpose(1, 2)).mean(-1))


class NonLocal(nn.Module):
    """The embedded Gaussian of one kind, on maps `[B, C, F, h, w]`, in 1x1x1 convolutions."""

    def __init__(self, dim, inner, weight, over):
        super().__init__()
        self.theta, self.phi, self.g = (nn.Conv3d(dim, inner, 1) for _ in range(3))
        self.out = nn.Conv3d(inner, dim, 1)
        self.weight, self.over = weight, over

    def forward(self, x):
        query, key, value = self.theta(x), self.phi(x), self.g(x)
        # The axes of a pair of cells, those of the other cell, and how many of them it is chosen by.
        pair, other, last = {
            "space": ("bfijkl", "bcfkl", 2), "time": ("bijft", "bctij", 1), "clip": ("bfijtkl", "bctkl", 3)
        }[self.over]  # fmt: skip
        likeness = torch.einsum(f"bcfij,{other}->{pair}", query, key)
        shares = likeness.flatten(-last).softmax(-1).view_as(likeness)
        return x + self.weight * self.out(torch.einsum(f"{pair},{other}->bcfij", shares, value))
