"""AP-GeM: the average precision of whole lists of images, through a histogram of cosines (Revaud et al., "Learning with
Average Precision: Training Image Retrieval with a Listwise Loss", ICCV 2019).

    python -m jaxvpr.main --config=configs/apgem.py                    # the embedded city, minutes on a laptop
    python -m jaxvpr.main --config=configs/apgem.py:landmarks,data=/data,init=resnet101.pth
    python -m jaxvpr.main --config=configs/apgem.py:gsv_cities,data=/data,init=resnet50.pth

The loss wants large batches; `grad_cache` takes them in parts and gives the gradient of the whole (the authors'
multi-stage backpropagation). The whitening by principal components that the published model has on top is learned from
descriptors afterwards, and belongs to no training.
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """The embedded city: GeM and a linear layer to 128 dimensions behind a small ResNet, 32 places of 4 images."""
    config = trainings.places_in_city("apgem-city")
    _listwise(config, P=32, K=4, dim=128)
    config.steps_per_epoch = 50
    return config


def landmarks() -> ConfigDict:
    """The paper's network and batch on the 586 classes of Landmarks-clean: ResNet-101, 800 pixels, 4096 images.

    A folder a class. Wants `init=` with torchvision's ImageNet weights. 512 classes of 8 images, 200 batches of them
    and the rate, which falls to 0 over the second half, are how we fill in the paper. BatchNorm runs on its running
    averages, as gradients in parts need it.
    """
    config = common.base()
    config.name = "apgem-landmarks"
    config.model.backbone = "resnet101"
    config.model.backbone_options = ConfigDict({"frozen_bn": "all", "remat": True})
    config.image = common.image((800, 800), "pil_bilinear")
    config.train_data = common.data("classes", "data/landmarks_clean")
    config.val_data = ConfigDict({"pitts30k_val": common.data("at_names", "data/pitts30k", "val")})
    config.test_data = ConfigDict({"pitts30k": common.data("at_names", "data/pitts30k", "test")})
    config.objective = common.places(P=512, K=8, by="place")
    config.augment.update(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, scale=(0.5, 1.0))
    _listwise(config, P=512, K=8, dim=2048)
    config.grad_cache = 256
    config.epochs, config.steps_per_epoch = 4, 50
    config.optimizer = common.optimizer(
        "adam", 1e-4, weight_decay=1e-6, schedule="linear", final=0.0, warmup=100, warmup_start=1.0
    )
    return config


def gsv_cities() -> ConfigDict:
    """The same loss on GSV-Cities: ResNet-50, 2048 dimensions, 256 places of 4 images; the optimiser is Conv-AP's."""
    config = trainings.places_of_gsv_cities("apgem-gsv-cities", P=256, epochs=30)
    config.model.backbone = "resnet50"
    config.model.backbone_options = ConfigDict({"frozen_until": "layer2"})
    config.image = common.image((320, 320), "pil_bilinear")
    _listwise(config, P=256, K=4, dim=2048)
    config.optimizer = common.optimizer(
        "adamw", 2e-4, schedule="multi_step", per="epoch", milestones=(5, 10, 15, 25), gamma=0.3, warmup=600
    )
    return config


def _listwise(config: ConfigDict, P: int, K: int, dim: int) -> None:
    """AP of 25 bins over batches of P x K images; GeM with p = 3 and a linear layer to `dim` numbers."""
    config.model.aggregator = "fc"
    config.model.aggregator_options = ConfigDict(
        {"inner": ConfigDict({"aggregator": "gem", "aggregator_options": ConfigDict({"p": 3.0})}), "dim": dim}
    )
    config.objective.update(P=P, K=K, loss="listwise_ap", miner="none")
    config.objective.loss_options = ConfigDict({"bins": 25})
    config.batch = P * K


PRESETS = {"city": city, "landmarks": landmarks, "gsv_cities": gsv_cities}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
