"""Pre-training of a backbone by classification of class folders (Berton et al., "Deep Visual Geo-localization
Benchmark", CVPR 2022, section 4.4). Any recipe then starts from it:

    python -m jaxvpr.main --config=configs/pretrain.py                  # the embedded city's cells as classes
    python -m jaxvpr.main --config=configs/gsv_cities.py,init=runs/pretrain-city/model.safetensors:backbone/
    python -m jaxvpr.main --config=configs/pretrain.py:places365,data=/data
    python -m jaxvpr.main --config=configs/pretrain.py:gldv2,data=/data,init=resnet50.pth

Behind the colon of `init` stands which parameters to take: those of the backbone, whatever the aggregator. A data set
to validate on, such as val_data.pitts30k.root=FOLDER,val_data.pitts30k.split=val, decides which epoch is kept.
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """The embedded city: 10 m and 30 degrees are a class, the images of a class show the same buildings.

    A small ResNet from random weights, some three minutes on two quiet cores. Measured on 2026-11-21, one seed: the
    mean of its map finds R@1 37.3 of 600 queries within 25 m, untrained 9.7. Conv-AP (configs/gsv_cities.py, epochs=2,
    200 steps) reaches R@1 53.8 from this backbone, 15.8 from random weights.
    """
    config = trainings.in_city("pretrain-city")
    config.model.aggregator = "spoc"
    config.objective = classes(by="cell", min_images=3)
    # 7,356 images: 115 batches are a pass.
    config.batch, config.steps_per_epoch, config.epochs, config.every_epochs = 64, 115, 10, 2
    config.optimizer = common.optimizer("adam", 4e-3, schedule="cosine", warmup=60)
    config.optimizer_extra = common.optimizer("adam", 4e-3, schedule="cosine", warmup=60)
    return config


def places365() -> ConfigDict:
    """ResNet-18 on the 1.8 million images of Places365-Standard, one folder for each of 365 kinds of scene.

    SGD as is usual for ResNets: 90 epochs, the rate a tenth every 30. An epoch is a pass.
    """
    config = common.base()
    config.name = "pretrain-places365"
    config.model.aggregator = "spoc"
    config.image = common.image((224, 224), "pil_bilinear")
    config.train_data = common.data("classes", "data/places365/train", "train")
    config.objective = classes(by="place", min_images=1)
    config.augment.update(scale=(0.08, 1.0), flip=0.5)
    config.batch, config.steps_per_epoch, config.epochs = 256, 7045, 90
    config.optimizer = _sgd(0.1)
    config.optimizer_extra = _sgd(0.1)
    return config


def gldv2() -> ConfigDict:
    """ResNet-50 with GeM and 2048 dimensions on the clean part of Google Landmarks v2, a folder for each landmark.

    ArcFace with DELG's margin and the scale that DELG's learned one starts from (Cao et al., ECCV 2020). 1.58 million
    images of 81,313 landmarks: 12,347 batches of 128 are a pass. Wants `init=` with torchvision's ImageNet weights.
    """
    config = common.base()
    config.name = "pretrain-gldv2"
    config.model.backbone = "resnet50"
    config.model.aggregator_options = ConfigDict({"dim": 2048})
    config.image = common.image((512, 512), "pil_bilinear")
    config.train_data = common.data("classes", "data/gldv2/train", "train")
    config.objective = classes(by="place", min_images=1, loss="arcface", scale=45.25, margin=0.1)
    config.augment.update(brightness=0.2, contrast=0.2, saturation=0.2, scale=(0.3, 1.0))
    config.batch, config.steps_per_epoch, config.epochs = 128, 12_347, 30
    config.optimizer = common.optimizer("sgd", 0.01, schedule="cosine", weight_decay=1e-4)
    config.optimizer_extra = common.optimizer("sgd", 0.01, schedule="cosine", weight_decay=1e-4)
    return config


def _sgd(rate: float) -> ConfigDict:
    return common.optimizer("sgd", rate, schedule="multi_step", per="epoch", milestones=(30, 60), weight_decay=1e-4)


def classes(*, by: str, min_images: int, loss: str = "softmax", scale: float = 30.0, margin: float = 0.3) -> ConfigDict:
    """The keys of the objective. `scale` and `margin` (radians) are those of "arcface" and "cosface", `smoothing` that
    of the labels of "softmax"; `balanced` draws classes instead of passes over the images."""
    return ConfigDict(
        {
            "name": "pretraining",
            "partition": ConfigDict({"by": by, "M": 10.0, "alpha": 30.0}),
            "min_images": min_images,
            "loss": loss,
            "scale": scale,
            "margin": margin,
            "margin_warmup": 0.0,
            "head_steps": 0,
            "smoothing": 0.0,
            "balanced": False,
        }
    )


PRESETS = {"city": city, "places365": places365, "gldv2": gldv2}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
