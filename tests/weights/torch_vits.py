"""Plain PyTorch vision transformers with the originals' parameter names, written apart from ours to compare with."""

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2))
        return self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGLU(nn.Module):
    def __init__(self, width):
        super().__init__()
        hidden = -(-int(4 * width * 2 / 3) // 8) * 8
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x):
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


class LayerScale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * self.gamma


class ConvBN(nn.Module):
    def __init__(self, inside, outside, size):
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, size, padding=size // 2)
        self.bn = nn.BatchNorm2d(outside, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Adapter(nn.Module):
    """CricaVPR's; for 768 channels: 384 inside, branches of 192, 24 to 96 and 24 to 96."""

    def __init__(self, width):
        super().__init__()
        inner = width // 2
        self.branch1 = ConvBN(inner, inner // 2, 1)
        self.branch2 = nn.Sequential(ConvBN(inner, inner // 16, 1), ConvBN(inner // 16, inner // 4, 3))
        self.branch3 = nn.Sequential(ConvBN(inner, inner // 16, 1), ConvBN(inner // 16, inner // 4, 5))
        self.D_fc1 = nn.Linear(width, inner)
        self.D_fc2 = nn.Linear(inner, width)

    def forward(self, x, grid):
        x = F.relu(self.D_fc1(x))
        token, cells = x[:, :1], x[:, 1:].transpose(1, 2).unflatten(2, grid)
        seen = torch.cat([branch(cells) for branch in (self.branch1, self.branch2, self.branch3)], 1)
        return self.D_fc2(x + torch.cat([token, seen.flatten(2).transpose(1, 2)], 1))


class Block(nn.Module):
    def __init__(self, width, heads, mlp=Mlp, scaled=False, adapter=False):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width) if scaled else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = mlp(width)
        self.ls2 = LayerScale(width) if scaled else nn.Identity()
        if adapter:
            self.adapter = Adapter(width)

    def forward(self, x, grid):
        x = x + self.ls1(self.attn(self.norm1(x)))
        z = self.norm2(x)
        y = self.mlp(z)
        if hasattr(self, "adapter"):
            y = y + 0.2 * self.adapter(z, grid)
        return x + self.ls2(y)


class PatchEmbed(nn.Module):
    def __init__(self, width, patch):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, images):
        return self.proj(images).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """timm's, and DINOv2's where `scaled`."""

    def __init__(self, width, depth, heads, patch, side, scaled=False, swiglu=False, registers=0, adapters=False):
        super().__init__()
        self.patch, self.side, self.registers, self.scaled = patch, side, registers, scaled
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, width))
        if registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, registers, width))
        if scaled:
            self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = PatchEmbed(width, patch)
        mlp = SwiGLU if swiglu else Mlp
        self.blocks = nn.ModuleList(Block(width, heads, mlp, scaled, adapters) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def positions(self, grid):
        if grid == (self.side, self.side):
            return self.pos_embed
        cells = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (self.side, self.side))
        if self.scaled and not self.registers:
            factors = tuple((n + 0.1) / self.side for n in grid)
            cells = F.interpolate(cells, scale_factor=factors, mode="bicubic")
        else:
            cells = F.interpolate(cells, size=grid, mode="bicubic", antialias=True)
        return torch.cat([self.pos_embed[:, :1], cells.flatten(2).transpose(1, 2)], 1)

    def tokens(self, images):
        """The first block's input and the grid."""
        grid = tuple(side // self.patch for side in images.shape[2:])
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), self.patch_embed(images)], 1) + self.positions(grid)
        if self.registers:
            x = torch.cat([x[:, :1], self.register_tokens.expand(len(images), -1, -1), x[:, 1:]], 1)
        return x, grid

    def forward(self, images, norm=True):
        """The map [B, C, h, w] and the class token [B, C]."""
        x, grid = self.tokens(images)
        for block in self.blocks:
            x = block(x, grid)
        return split(self.norm(x) if norm else x, grid)


def split(x, grid):
    """Tokens as a map [B, C, h, w] and the class token [B, C]."""
    return x[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid), x[:, 0]


class HuggingFaceViT(nn.Module):
    """The names of `transformers.ViTModel`, and its `interpolate_pos_encoding=True`."""

    def __init__(self, width, depth, heads, patch, side):
        super().__init__()
        self.heads, self.patch, self.side = heads, patch, side
        names = {
            "embeddings.patch_embeddings.projection": nn.Conv2d(3, width, patch, patch),
            "layernorm": nn.LayerNorm(width, eps=1e-12),
            "pooler.dense": nn.Linear(width, width),
        }
        for i in range(depth):
            layer = f"encoder.layer.{i}"
            names |= {f"{layer}.attention.attention.{n}": nn.Linear(width, width) for n in ("query", "key", "value")}
            names |= {
                f"{layer}.attention.output.dense": nn.Linear(width, width),
                f"{layer}.intermediate.dense": nn.Linear(width, 4 * width),
                f"{layer}.output.dense": nn.Linear(4 * width, width),
                f"{layer}.layernorm_before": nn.LayerNorm(width, eps=1e-12),
                f"{layer}.layernorm_after": nn.LayerNorm(width, eps=1e-12),
            }
        for name, module in names.items():
            self._place(name, module)
        self.embeddings.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.embeddings.position_embeddings = nn.Parameter(torch.zeros(1, 1 + side * side, width))

    def _place(self, name, module):
        parent = self
        *folders, last = name.split(".")
        for folder in folders:
            if folder not in dict(parent.named_children()):
                parent.add_module(folder, nn.Module())
            parent = getattr(parent, folder)
        parent.add_module(last, module)

    def forward(self, images):
        """The map [B, C, h, w] and the class token [B, C]."""
        grid = tuple(side // self.patch for side in images.shape[2:])
        patches = self.embeddings.patch_embeddings.projection(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.embeddings.cls_token.expand(len(images), -1, -1), patches], 1)
        positions = self.embeddings.position_embeddings
        cells = positions[:, 1:].transpose(1, 2).unflatten(2, (self.side, self.side))
        cells = F.interpolate(cells, size=grid, mode="bicubic").flatten(2).transpose(1, 2)
        x = x + torch.cat([positions[:, :1], cells], 1)
        for layer in self.encoder.layer.children():
            attention, z = layer.attention.attention, layer.layernorm_before(x)
            query, key, value = (
                part(z).unflatten(2, (self.heads, -1)).transpose(1, 2)
                for part in (attention.query, attention.key, attention.value)
            )
            weights = torch.softmax(query @ key.transpose(2, 3) / query.shape[-1] ** 0.5, -1)
            x = x + layer.attention.output.dense((weights @ value).transpose(1, 2).flatten(2))
            x = x + layer.output.dense(F.gelu(layer.intermediate.dense(layer.layernorm_after(x))))
        return split(self.layernorm(x), grid)


class DeepVG(nn.Module):
    """The Deep VG benchmark's ViT after `trunc_te`: its wrapper, then the class token or GeM of the others, as is."""

    def __init__(self, vit, p=None):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.vit_model = vit
        self.aggregation = nn.Sequential(nn.Module()) if p else nn.Identity()
        if p:
            self.aggregation[0].p = nn.Parameter(torch.ones(1) * p)

    def forward(self, images):
        cells, token = self.backbone.vit_model(images)
        if isinstance(self.aggregation, nn.Identity):
            return token
        p = self.aggregation[0].p
        return cells.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p)
