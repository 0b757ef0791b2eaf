"""Distillation: a small model learns to describe images as a large one does, from images without labels.

    python -m jaxvpr.main --config=configs/cosplace.py                  # the teacher
    python -m jaxvpr.main --config=configs/distill.py                   # the embedded city, minutes on a laptop
    python -m jaxvpr.main --config=configs/distill.py:salad_small,data=/data,init=resnet18.pth,\
objective.teacher=salad-dinov2b:/data/dino_salad.ckpt

`objective.teacher` is the folder of a run, its model.safetensors, or METHOD:FILE with a method of docs/models.md.
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """The embedded city: CosPlace's small ResNet teaches one with half its channels and a quarter of its dimensions.

    Some three minutes on two quiet cores. Measured on 2026-11-21, one seed, 600 queries within 25 m: R@1 72.7; with
    objective.loss=similarity 64.0; the teacher 77.0; the same student without one, trained as CosPlace for 1,200 steps,
    54.2.
    """
    config = trainings.in_city("distill-city")
    config.model.backbone_options = ConfigDict({"widths": (8, 16, 32, 64)})
    config.model.aggregator_options = ConfigDict({"dim": 64, "fc_norm": True, "l2_before": False})
    config.objective = teacher("runs/cosplace-city/model.safetensors")
    # 7,488 images: 117 batches are a pass.
    config.batch, config.steps_per_epoch, config.epochs, config.every_epochs = 64, 117, 10, 2
    config.optimizer = common.optimizer("adam", 4e-3, schedule="cosine", warmup=60)
    config.optimizer_extra = common.optimizer("adam", 4e-3, schedule="cosine", warmup=60)
    return config


def salad_small() -> ConfigDict:
    """SALAD with DINOv2-B teaches a ResNet-18 of 512 dimensions on GSV-Cities' 530,000 images.

    The teacher sees 322x322 pixels, computed in bfloat16; the student 320x320. Wants `init=` with torchvision's
    ImageNet weights, and the teacher's file.
    """
    config = common.base()
    config.name = "distill-salad-small"
    config.model.aggregator_options = ConfigDict({"dim": 512})
    config.image = common.image((320, 320), "pil_bilinear")
    config.train_data = common.data("gsv_cities", "data/gsv_cities")
    config.val_data = ConfigDict({"pitts30k_val": common.data("at_names", "data/pitts30k", "val")})
    config.test_data = ConfigDict({"pitts30k": common.data("at_names", "data/pitts30k", "test")})
    config.objective = teacher("salad-dinov2b:dino_salad.ckpt", dtype="bfloat16")
    config.augment.update(brightness=0.2, contrast=0.2, saturation=0.2, scale=(0.5, 1.0))
    config.batch, config.steps_per_epoch, config.epochs = 128, 4140, 20
    config.optimizer = common.optimizer("adamw", 3e-4, schedule="cosine", warmup=1000, weight_decay=1e-2)
    config.optimizer_extra = common.optimizer("adamw", 1e-3, schedule="cosine", warmup=1000)
    return config


def teacher(name: str, *, loss: str = "cosine", dtype: str = "") -> ConfigDict:
    """The keys of the objective.

    `loss` draws each descriptor to the teacher's ("cosine"), or the cosines within a batch to those of the teacher
    ("similarity"). Where dimensions differ, "cosine" learns a linear `projection` beside the student, or refuses
    without. `teacher_size` (height, width) is what the teacher is shown, () its own size; `teacher_dtype` the type it
    computes in, "" its own.
    """
    return ConfigDict(
        {
            "name": "distillation",
            "teacher": name,
            "teacher_size": (),
            "teacher_dtype": dtype,
            "loss": loss,
            "projection": True,
        }
    )


PRESETS = {"city": city, "salad_small": salad_small}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
