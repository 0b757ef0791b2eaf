"""Plain PyTorch heads of the place-grouped methods with the originals' parameter names, written apart from ours."""

import torch
import torch.nn.functional as F
from torch import nn


class ConvAP(nn.Module):
    def __init__(self, channels, dim, rows, columns):
        super().__init__()
        self.channel_pool = nn.Conv2d(channels, dim, 1)
        self.pool = nn.AdaptiveAvgPool2d((rows, columns))

    def forward(self, features):
        return F.normalize(self.pool(self.channel_pool(features[0])).flatten(1))


class Mixer(nn.Module):
    def __init__(self, cells, hidden):
        super().__init__()
        self.mix = nn.Sequential(nn.LayerNorm(cells), nn.Linear(cells, hidden), nn.ReLU(), nn.Linear(hidden, cells))

    def forward(self, x):
        return self.mix(x) + x


class MixVPR(nn.Module):
    def __init__(self, channels, cells, dim, rows, depth, ratio=1):
        super().__init__()
        self.mix = nn.Sequential(*(Mixer(cells, int(cells * ratio)) for _ in range(depth)))
        self.channel_proj = nn.Linear(channels, dim)
        self.row_proj = nn.Linear(cells, rows)

    def forward(self, features):
        x = self.mix(features[0].flatten(2))
        x = self.channel_proj(x.transpose(1, 2)).transpose(1, 2)
        return F.normalize(self.row_proj(x).flatten(1))


class SALAD(nn.Module):
    """Sinkhorn on probabilities rather than on logarithms: the textbook's form, in float64."""

    def __init__(self, channels, clusters=64, cluster_dim=128, token_dim=256, hidden=512):
        super().__init__()
        self.token_features = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, token_dim))
        self.cluster_features = self.network(channels, hidden, cluster_dim)
        self.score = self.network(channels, hidden, clusters)
        self.dust_bin = nn.Parameter(torch.tensor(1.0))

    @staticmethod
    def network(channels, hidden, dim):
        return nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.Dropout(0.3), nn.ReLU(), nn.Conv2d(hidden, dim, 1))

    def forward(self, features):
        x, token = features
        local, scores = self.cluster_features(x).flatten(2), self.score(x).flatten(2).double()
        clusters, cells = scores.shape[1:]
        plan = torch.exp(torch.cat([scores, self.dust_bin.double().expand(len(x), 1, cells)], 1))
        wanted = torch.tensor([1.0] * clusters + [cells - clusters], dtype=torch.float64).view(1, -1, 1)
        for _ in range(3):
            plan = plan * wanted / plan.sum(2, keepdim=True)
            plan = plan / plan.sum(1, keepdim=True)
        sums = local @ plan[:, :-1].float().transpose(1, 2)
        parts = [F.normalize(self.token_features(token)), F.normalize(sums, dim=1).flatten(1)]
        return F.normalize(torch.cat(parts, 1))


class MegaLocHead(nn.Module):
    def __init__(self, channels, dim=8448, clusters=64, cluster_dim=256, token_dim=256, hidden=512):
        super().__init__()
        self.agg = SALAD(channels, clusters, cluster_dim, token_dim, hidden)
        self.linear = nn.Linear(clusters * cluster_dim + token_dim, dim)

    def forward(self, features):
        return F.normalize(self.linear(self.agg(features)))


class BoQBlock(nn.Module):
    def __init__(self, dim, queries, heads):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(dim, heads, 4 * dim, dropout=0.0, batch_first=True)
        self.queries = nn.Parameter(torch.randn(1, queries, dim))
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm_q = nn.LayerNorm(dim)
        self.cross_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, x):
        x = self.encoder(x)
        q = self.queries.expand(len(x), -1, -1)
        q = self.norm_q(q + self.self_attn(q, q, q)[0])
        return x, self.norm_out(self.cross_attn(q, x, x)[0])


class BoQ(nn.Module):
    def __init__(self, channels, dim, queries=64, layers=2, rows=32, head_dim=64):
        super().__init__()
        self.proj_c = nn.Conv2d(channels, dim, 3, padding=1)
        self.norm_input = nn.LayerNorm(dim)
        self.boqs = nn.ModuleList(BoQBlock(dim, queries, dim // head_dim) for _ in range(layers))
        self.fc = nn.Linear(layers * queries, rows)

    def forward(self, features):
        x = self.norm_input(self.proj_c(features[0]).flatten(2).transpose(1, 2))
        found = []
        for block in self.boqs:
            x, answers = block(x)
            found.append(answers)
        return F.normalize(self.fc(torch.cat(found, 1).transpose(1, 2)).flatten(1))


class CricaVPRHead(nn.Module):
    """What stands in the original around its backbone: `aggregation.1.p` and `encoder.layers.i`.

    PyTorch's encoder takes its first axis for the sequence: here the batch.
    """

    def __init__(self, gem, channels=768, heads=16, hidden=2048, layers=2, cuts=((8,), (5, 11))):
        super().__init__()
        self.aggregation = nn.Sequential(nn.Identity(), gem, nn.Flatten())
        layer = nn.TransformerEncoderLayer(channels, heads, hidden, activation="gelu", batch_first=False)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.cuts = cuts

    def forward(self, features):
        x, token = features
        x, parts = F.normalize(x, dim=1), [token]
        for level in self.cuts:
            rows, columns = (torch.tensor_split(torch.arange(size), level) for size in x.shape[2:])
            parts += [self.aggregation(x[:, :, r][:, :, :, c]) for r in rows for c in columns]
        return F.normalize(self.encoder(torch.stack(parts, 1)).flatten(1))


class Inside(nn.Module):
    """A backbone one level down, under the name that its method gives it."""

    def __init__(self, name, module, **options):
        super().__init__()
        self.add_module(name, module)
        self.name, self.options = name, options

    def forward(self, images):
        return getattr(self, self.name)(images, **self.options)


class Method(nn.Module):
    def __init__(self, backbone, aggregator):
        super().__init__()
        self.backbone, self.aggregator = backbone, aggregator

    def forward(self, images):
        features = self.backbone(images)
        return self.aggregator(features if isinstance(features, tuple) else (features, None))


class CricaVPR(CricaVPRHead):
    def __init__(self, backbone, gem, **options):
        super().__init__(gem, **options)
        self.backbone = backbone

    def forward(self, images):
        return super().forward(self.backbone(images))


def torchvision_model(resnet, stages):
    """A ResNet without what follows its last stage, under `model.`, as in GSV-Cities' code."""
    for name in [name for name, _ in resnet.named_children()][4 + stages :]:
        delattr(resnet, name)
    return Inside("model", resnet)


def sequential_model(resnet, stages):
    """A ResNet's children up to a stage under `net.`, as in BoQ's code."""
    return Inside("net", nn.Sequential(*list(resnet.children())[: 4 + stages]))


def without_mask_token(vit):
    del vit.mask_token
    return vit
